// SPDX-License-Identifier: Apache-2.0

package sockmeta

import (
	"context"
	"errors"
	"net"
	"syscall"

	"github.com/sockmeta/sockmeta-go/conn"
)

// opDial is the operation in errors, as package net names it.
const opDial = "dial"

// errMissingAddress is what net's functions say of a nil address.
var errMissingAddress = errors.New("missing address")

// A Dialer is a net.Dialer whose UDP and TCP connections have metadata. The zero
// value works.
type Dialer struct {
	net.Dialer

	// Require fails with ErrNotSupported where there would be no metadata.
	// Else the connection is a plain one then, and its Support method says
	// why.
	Require bool
}

// Dial is net.Dialer.Dial; see DialContext.
func (d *Dialer) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, address)
}

// DialContext is net.Dialer.DialContext. For UDP networks the connection is a
// *UDPConn, for TCP networks a *TCPConn; others, and Multipath TCP connections
// (SetMultipathTCP), have no metadata.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	plain := d.prepared()
	c, err := plain.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	var missing error
	switch p := c.(type) {
	case *net.UDPConn:
		w := conn.NewUDPConn(p)
		c, missing = w, w.Support().Err()
	case *net.TCPConn:
		w := conn.NewTCPConn(p)
		c, missing = w, w.Support().Err()
	default:
		missing = errKind(network)
	}
	if d.Require && missing != nil {
		_ = c.Close()
		return nil, &net.OpError{Op: opDial, Net: network, Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: missing}
	}
	return c, nil
}

// prepared opts sockets in before they are connected, after ControlContext or
// Control has had them.
func (d *Dialer) prepared() net.Dialer {
	plain := d.Dialer
	control, controlContext := plain.Control, plain.ControlContext
	plain.Control = nil
	plain.ControlContext = func(ctx context.Context, network, address string, rc syscall.RawConn) error {
		var err error
		switch {
		case controlContext != nil:
			err = controlContext(ctx, network, address, rc)
		case control != nil:
			err = control(network, address, rc)
		}
		if err != nil {
			return err
		}
		// Should it fail, wrapping the socket will say so.
		_ = conn.Prepare(network, rc)
		return nil
	}
	return plain
}

// Dial is net.Dial. For UDP networks the connection is a *UDPConn, for TCP
// networks a *TCPConn.
func Dial(network, address string) (net.Conn, error) {
	var d Dialer
	return d.Dial(network, address)
}

// DialUDP is net.DialUDP.
func DialUDP(network string, laddr, raddr *net.UDPAddr) (*UDPConn, error) {
	switch network {
	case "udp", "udp4", "udp6":
	default:
		return nil, &net.OpError{Op: opDial, Net: network, Source: udpAddr(laddr), Addr: udpAddr(raddr), Err: net.UnknownNetworkError(network)}
	}
	if raddr == nil {
		return nil, &net.OpError{Op: opDial, Net: network, Source: udpAddr(laddr), Err: errMissingAddress}
	}
	var d Dialer
	if laddr != nil {
		d.LocalAddr = laddr
	}
	c, err := d.Dial(network, raddr.String())
	if err != nil {
		return nil, withAddr(err, raddr)
	}
	return c.(*UDPConn), nil
}

// DialTCP is net.DialTCP.
func DialTCP(network string, laddr, raddr *net.TCPAddr) (*TCPConn, error) {
	switch network {
	case "tcp", "tcp4", "tcp6":
	default:
		return nil, &net.OpError{Op: opDial, Net: network, Source: tcpAddr(laddr), Addr: tcpAddr(raddr), Err: net.UnknownNetworkError(network)}
	}
	if raddr == nil {
		return nil, &net.OpError{Op: opDial, Net: network, Source: tcpAddr(laddr), Err: errMissingAddress}
	}
	var d Dialer
	if laddr != nil {
		d.LocalAddr = laddr
	}
	c, err := d.Dial(network, raddr.String())
	if err != nil {
		return nil, withAddr(err, raddr)
	}
	return c.(*TCPConn), nil
}

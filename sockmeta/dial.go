// SPDX-License-Identifier: Apache-2.0

package sockmeta

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
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
// *UDPConn, for TCP networks a *TCPConn; others, those of DialIP and DialUnix among
// them, and Multipath TCP connections (SetMultipathTCP) have no metadata.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	plain := d.prepared()
	c, err := plain.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	switch p := c.(type) {
	case *net.UDPConn:
		w := conn.NewUDPConn(p)
		return keepConn[net.Conn](w, network, d.Require, w.Support().Err())
	case *net.TCPConn:
		w := conn.NewTCPConn(p)
		return keepConn[net.Conn](w, network, d.Require, w.Support().Err())
	}
	return keepConn(c, network, d.Require, errKind(network))
}

// DialUDP is net.Dialer.DialUDP.
func (d *Dialer) DialUDP(ctx context.Context, network string, laddr, raddr netip.AddrPort) (*UDPConn, error) {
	plain := d.prepared()
	c, err := plain.DialUDP(ctx, network, laddr, raddr)
	if err != nil {
		return nil, err
	}
	w := conn.NewUDPConn(c)
	return keepConn(w, network, d.Require, w.Support().Err())
}

// DialTCP is net.Dialer.DialTCP.
func (d *Dialer) DialTCP(ctx context.Context, network string, laddr, raddr netip.AddrPort) (*TCPConn, error) {
	plain := d.prepared()
	c, err := plain.DialTCP(ctx, network, laddr, raddr)
	if err != nil {
		return nil, err
	}
	w := conn.NewTCPConn(c)
	return keepConn(w, network, d.Require, w.Support().Err())
}

func keepConn[C net.Conn](c C, network string, require bool, missing error) (C, error) {
	return keep(c, require, missing, net.OpError{Op: opDial, Net: network, Source: c.LocalAddr(), Addr: c.RemoteAddr()})
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
	if isOrdinary(network, raddr.IP, raddr.Zone) {
		c, err := d.Dial(network, raddr.String())
		if err == nil {
			return c.(*UDPConn), nil
		}
		if reachedKernel(err) {
			return nil, withAddrs(err, udpAddr(laddr), raddr)
		}
	}
	c, err := net.DialUDP(network, laddr, raddr)
	if err != nil {
		return nil, err
	}
	return conn.NewUDPConn(c), nil
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
	if isOrdinary(network, raddr.IP, raddr.Zone) {
		c, err := d.Dial(network, raddr.String())
		if err == nil {
			return c.(*TCPConn), nil
		}
		if reachedKernel(err) {
			return nil, withAddrs(err, tcpAddr(laddr), raddr)
		}
	}
	c, err := net.DialTCP(network, laddr, raddr)
	if err != nil {
		return nil, err
	}
	return conn.NewTCPConn(c), nil
}

// isOrdinary tells addresses that mean the same as strings. Others net would
// look up as names, or take "[::]" for the IPv4 wildcard.
func isOrdinary(network string, ip net.IP, zone string) bool {
	switch {
	case len(ip) == 0:
		return true
	case ip.To4() != nil:
		return zone == ""
	}
	return len(ip) == net.IPv6len && !strings.HasSuffix(network, "4")
}

// reachedKernel says that net took the addresses, or gave up waiting: what it
// says of others depends on whether they were strings.
func reachedKernel(err error) bool {
	var errno syscall.Errno
	var timeout net.Error
	return errors.As(err, &errno) || errors.As(err, &timeout) && timeout.Timeout()
}

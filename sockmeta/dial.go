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

// A Dialer is a net.Dialer whose UDP and TCP connections have metadata. The zero
// value works.
type Dialer struct {
	net.Dialer

	// Require fails with ErrNotSupported where there would be no metadata.
	// Else the connection is a plain one then, and its Support method says
	// why.
	Require bool

	// Metadata is what TCP connections give all that they send, from the SYN on,
	// see TCPConn.SetMetadata. Where it cannot be set, or the policy refuses a
	// part of it, the connection is opened all the same, unless Require is set.
	// Datagrams have metadata of their own: UDPConn.WriteMetadata.
	Metadata *Metadata

	// ReceiveMap is ListenConfig.ReceiveMap.
	ReceiveMap string

	// GRO is ListenConfig.GRO.
	GRO Segments
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
		w := newUDPConn(p, d.ReceiveMap, d.GRO)
		return keepConn[net.Conn](w, network, d.Require, missing(w))
	case *net.TCPConn:
		w := conn.NewTCPConn(p)
		return keepConn[net.Conn](w, network, d.Require, d.missing(w))
	}
	return keepConn(c, network, d.Require, noMetadata(network))
}

// DialUDP is net.Dialer.DialUDP.
func (d *Dialer) DialUDP(ctx context.Context, network string, laddr, raddr netip.AddrPort) (*UDPConn, error) {
	plain := d.prepared()
	c, err := plain.DialUDP(ctx, network, laddr, raddr)
	if err != nil {
		return nil, err
	}
	w := newUDPConn(c, d.ReceiveMap, d.GRO)
	return keepConn(w, network, d.Require, missing(w))
}

// DialTCP is net.Dialer.DialTCP.
func (d *Dialer) DialTCP(ctx context.Context, network string, laddr, raddr netip.AddrPort) (*TCPConn, error) {
	plain := d.prepared()
	c, err := plain.DialTCP(ctx, network, laddr, raddr)
	if err != nil {
		return nil, err
	}
	w := conn.NewTCPConn(c)
	return keepConn(w, network, d.Require, d.missing(w))
}

// missing returns a function that says what a connection lacks of what was asked
// for. The metadata that its SYN had it sets once more, to hear about it.
func (d *Dialer) missing(c *TCPConn) func() error {
	return func() error {
		err := c.Support().Err()
		if err == nil && d.Metadata != nil {
			err = c.SetMetadata(d.Metadata)
		}
		var op *net.OpError
		if errors.As(err, &op) {
			return op.Err
		}
		return err
	}
}

func keepConn[C net.Conn](c C, network string, require bool, missing func() error) (C, error) {
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
		// Should it fail, wrapping the socket will say so, and missing.
		_ = conn.Prepare(network, rc)
		if d.Metadata != nil && strings.HasPrefix(network, "tcp") {
			_ = conn.PrepareMetadata(rc, d.Metadata)
		}
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
	if raddr != nil && isOrdinary("udp", network, raddr.IP, raddr.Zone) {
		var d Dialer
		if laddr != nil {
			d.LocalAddr = laddr
		}
		c, err := d.Dial(network, raddr.String())
		if err == nil {
			return c.(*UDPConn), nil
		}
		if reachedKernel(err) {
			return nil, withAddrs(err, d.LocalAddr, raddr)
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
	if raddr != nil && isOrdinary("tcp", network, raddr.IP, raddr.Zone) {
		var d Dialer
		if laddr != nil {
			d.LocalAddr = laddr
		}
		c, err := d.Dial(network, raddr.String())
		if err == nil {
			return c.(*TCPConn), nil
		}
		if reachedKernel(err) {
			return nil, withAddrs(err, d.LocalAddr, raddr)
		}
	}
	c, err := net.DialTCP(network, laddr, raddr)
	if err != nil {
		return nil, err
	}
	return conn.NewTCPConn(c), nil
}

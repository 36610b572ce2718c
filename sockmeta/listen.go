// SPDX-License-Identifier: Apache-2.0

package sockmeta

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/sockmeta/sockmeta-go/conn"
)

// opListen is the operation in errors, as package net names it.
const opListen = "listen"

// A ListenConfig is a net.ListenConfig whose UDP and TCP sockets have metadata.
// The zero value works. Its Multipath TCP setting has no effect: the kernel
// does not let programs opt in the connections of such listeners, so they are
// made without.
type ListenConfig struct {
	net.ListenConfig

	// Require fails with ErrNotSupported where there would be no metadata.
	// Else the socket is a plain one then, and its Support method says why.
	Require bool
}

// Listen is net.ListenConfig.Listen. For TCP networks the listener is a
// *TCPListener; others have no metadata and are those of package net.
func (lc *ListenConfig) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	plain := lc.prepared()
	plain.SetMultipathTCP(false)
	l, err := plain.Listen(ctx, network, address)
	if err != nil {
		return nil, err
	}
	t, ok := l.(*net.TCPListener)
	if !ok {
		return keep(l, l.Addr(), lc.Require, errKind(network))
	}
	w := conn.NewTCPListener(t)
	return keep[net.Listener](w, w.Addr(), lc.Require, w.Support().Err())
}

// ListenPacket is net.ListenConfig.ListenPacket. For UDP networks the connection
// is a *UDPConn; others have no metadata and are those of package net.
func (lc *ListenConfig) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	plain := lc.prepared()
	p, err := plain.ListenPacket(ctx, network, address)
	if err != nil {
		return nil, err
	}
	u, ok := p.(*net.UDPConn)
	if !ok {
		return keep(p, p.LocalAddr(), lc.Require, errKind(network))
	}
	w := conn.NewUDPConn(u)
	return keep[net.PacketConn](w, w.LocalAddr(), lc.Require, w.Support().Err())
}

func errKind(network string) error {
	return fmt.Errorf("%w on %s sockets", ErrNotSupported, network)
}

// keep returns s, unless it is required to have the metadata that it has not.
func keep[S interface{ Close() error }](s S, addr net.Addr, require bool, missing error) (S, error) {
	if !require || missing == nil {
		return s, nil
	}
	_ = s.Close()
	var none S
	return none, &net.OpError{Op: opListen, Net: addr.Network(), Addr: addr, Err: missing}
}

// prepared opts sockets in before they are bound, after Control has had them.
func (lc *ListenConfig) prepared() net.ListenConfig {
	plain := lc.ListenConfig
	control := plain.Control
	plain.Control = func(network, address string, rc syscall.RawConn) error {
		if control != nil {
			if err := control(network, address, rc); err != nil {
				return err
			}
		}
		// Should it fail, wrapping the socket will say so.
		_ = conn.Prepare(network, rc)
		return nil
	}
	return plain
}

// Listen is net.Listen. For TCP networks the listener is a *TCPListener.
func Listen(network, address string) (net.Listener, error) {
	var lc ListenConfig
	return lc.Listen(context.Background(), network, address)
}

// ListenPacket is net.ListenPacket. For UDP networks the connection is a
// *UDPConn.
func ListenPacket(network, address string) (net.PacketConn, error) {
	var lc ListenConfig
	return lc.ListenPacket(context.Background(), network, address)
}

// ListenUDP is net.ListenUDP. In a privileged process the first socket attaches
// the programs to the process's cgroup; see the package's documentation.
func ListenUDP(network string, laddr *net.UDPAddr) (*UDPConn, error) {
	switch network {
	case "udp", "udp4", "udp6":
	default:
		return nil, &net.OpError{Op: opListen, Net: network, Addr: udpAddr(laddr), Err: net.UnknownNetworkError(network)}
	}
	if laddr == nil {
		laddr = &net.UDPAddr{}
	}
	c, err := ListenPacket(network, laddr.String())
	if err != nil {
		return nil, withAddr(err, laddr)
	}
	return c.(*UDPConn), nil
}

// ListenTCP is net.ListenTCP, without Multipath TCP. As for ListenUDP, the first
// socket of a privileged process attaches the programs.
func ListenTCP(network string, laddr *net.TCPAddr) (*TCPListener, error) {
	switch network {
	case "tcp", "tcp4", "tcp6":
	default:
		return nil, &net.OpError{Op: opListen, Net: network, Addr: tcpAddr(laddr), Err: net.UnknownNetworkError(network)}
	}
	if laddr == nil {
		laddr = &net.TCPAddr{}
	}
	l, err := Listen(network, laddr.String())
	if err != nil {
		return nil, withAddr(err, laddr)
	}
	return l.(*TCPListener), nil
}

// ListenMulticastUDP is net.ListenMulticastUDP.
func ListenMulticastUDP(network string, ifi *net.Interface, gaddr *net.UDPAddr) (*UDPConn, error) {
	c, err := net.ListenMulticastUDP(network, ifi, gaddr)
	if err != nil {
		return nil, err
	}
	return WrapUDP(c), nil
}

// WrapUDP gives a connection of package net metadata. It must not be used by
// itself any more. What waits in its receive buffer has none.
func WrapUDP(c *net.UDPConn) *UDPConn { return conn.NewUDPConn(c) }

// WrapTCP gives a connection of package net metadata, from the next segment on.
// It must not be used by itself any more.
func WrapTCP(c *net.TCPConn) *TCPConn { return conn.NewTCPConn(c) }

// withAddr gives an error the address that the caller knows: an address that
// does not suit the network has none in the errors of the functions with
// strings.
func withAddr(err error, addr net.Addr) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Addr == nil {
		op.Addr = addr
	}
	return err
}

// udpAddr and tcpAddr keep a nil pointer from becoming a net.Addr that is not
// nil.
func udpAddr(a *net.UDPAddr) net.Addr {
	if a == nil {
		return nil
	}
	return a
}

func tcpAddr(a *net.TCPAddr) net.Addr {
	if a == nil {
		return nil
	}
	return a
}

// SPDX-License-Identifier: Apache-2.0

package sockmeta

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
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

	// ReceiveMap is where the receive map of the programs is pinned, for
	// processes that it has been granted to (bpf.Grant, sockmeta attach -grant):
	// they read the records of datagrams from it without system calls. Where it
	// cannot be mapped the kernel is asked, and Support().Unmapped says why.
	// Empty: a process maps what it attached itself.
	ReceiveMap string

	// PlainConns has Listen return a *net.TCPListener, whose connections are
	// *net.TCPConn: for servers that look for that type. MetadataOf and
	// OpeningMetadataOf ask for their metadata.
	PlainConns bool

	// GRO lets the kernel merge the datagrams that UDP sockets receive, see
	// UDPConn.SetGRO. Where it cannot, they come one by one, as they do without.
	GRO Segments
}

// Listen is net.ListenConfig.Listen. For TCP networks the listener is a
// *TCPListener, or a *net.TCPListener with PlainConns; others have no metadata and are
// those of package net.
func (lc *ListenConfig) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	plain := lc.prepared()
	plain.SetMultipathTCP(false)
	l, err := plain.Listen(ctx, network, address)
	if err != nil {
		return nil, err
	}
	t, ok := l.(*net.TCPListener)
	if !ok {
		return keepListening(l, l.Addr(), lc.Require, noMetadata(network))
	}
	w := conn.NewTCPListener(t)
	if lc.PlainConns {
		return keepListening[net.Listener](t, t.Addr(), lc.Require, missing(w))
	}
	return keepListening[net.Listener](w, w.Addr(), lc.Require, missing(w))
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
		return keepListening(p, p.LocalAddr(), lc.Require, noMetadata(network))
	}
	w := newUDPConn(u, lc.ReceiveMap, lc.GRO)
	return keepListening[net.PacketConn](w, w.LocalAddr(), lc.Require, missing(w))
}

// ListenUDP is ListenPacket for the networks udp, udp4 and udp6. The zero laddr is any
// address and a port that is free.
func (lc *ListenConfig) ListenUDP(ctx context.Context, network string, laddr netip.AddrPort) (*UDPConn, error) {
	address, err := listenAddress("udp", network, laddr)
	if err != nil {
		return nil, err
	}
	p, err := lc.ListenPacket(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return p.(*UDPConn), nil
}

// ListenTCP is Listen for the networks tcp, tcp4 and tcp6, whatever PlainConns says. The
// zero laddr is any address and a port that is free.
func (lc *ListenConfig) ListenTCP(ctx context.Context, network string, laddr netip.AddrPort) (*TCPListener, error) {
	address, err := listenAddress("tcp", network, laddr)
	if err != nil {
		return nil, err
	}
	wrapped := *lc
	wrapped.PlainConns = false
	l, err := wrapped.Listen(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return l.(*TCPListener), nil
}

// listenAddress is laddr as package net takes it.
func listenAddress(kind, network string, laddr netip.AddrPort) (string, error) {
	if network != kind && network != kind+"4" && network != kind+"6" {
		return "", &net.OpError{Op: opListen, Net: network, Err: net.UnknownNetworkError(network)}
	}
	if !laddr.IsValid() {
		return ":0", nil
	}
	return laddr.String(), nil
}

func newUDPConn(c *net.UDPConn, receiveMap string, gro Segments) *UDPConn {
	w := conn.NewGrantedUDPConn(c, receiveMap)
	if gro != SegmentsOff {
		// Nothing is lost without it but speed.
		_ = w.SetGRO(gro)
	}
	return w
}

// missing and noMetadata return functions that say why a socket has no metadata:
// only those who require it need to know, and finding out costs system calls.
func missing(s interface{ Support() Support }) func() error {
	return func() error { return s.Support().Err() }
}

func noMetadata(network string) func() error {
	return func() error { return fmt.Errorf("%w on %s sockets", ErrNotSupported, network) }
}

func keepListening[S io.Closer](s S, addr net.Addr, require bool, missing func() error) (S, error) {
	return keep(s, require, missing, net.OpError{Op: opListen, Net: addr.Network(), Addr: addr})
}

// keep returns s, unless it is required to have the metadata that it has not:
// then the error is op with what is missing.
func keep[S io.Closer](s S, require bool, missing func() error, op net.OpError) (S, error) {
	if !require {
		return s, nil
	}
	if op.Err = missing(); op.Err == nil {
		return s, nil
	}
	_ = s.Close()
	var none S
	return none, &op
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
	addr := laddr
	if addr == nil {
		addr = &net.UDPAddr{}
	}
	if isOrdinary("udp", network, addr.IP, addr.Zone) {
		l, err := ListenPacket(network, addr.String())
		if err == nil {
			return l.(*UDPConn), nil
		}
		if reachedKernel(err) {
			return nil, withAddrs(err, nil, addr)
		}
	}
	l, err := net.ListenUDP(network, laddr)
	if err != nil {
		return nil, err
	}
	return conn.NewUDPConn(l), nil
}

// ListenTCP is net.ListenTCP, without Multipath TCP. As for ListenUDP, the first
// socket of a privileged process attaches the programs.
func ListenTCP(network string, laddr *net.TCPAddr) (*TCPListener, error) {
	addr := laddr
	if addr == nil {
		addr = &net.TCPAddr{}
	}
	if isOrdinary("tcp", network, addr.IP, addr.Zone) {
		l, err := Listen(network, addr.String())
		if err == nil {
			return l.(*TCPListener), nil
		}
		if reachedKernel(err) {
			return nil, withAddrs(err, nil, addr)
		}
	}
	l, err := net.ListenTCP(network, laddr)
	if err != nil {
		return nil, err
	}
	return conn.NewTCPListener(l), nil
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

// WrapTCPListener gives the connections of a listener of package net metadata. It must
// not be used by itself any more.
func WrapTCPListener(l *net.TCPListener) *TCPListener { return conn.NewTCPListener(l) }

// SPDX-License-Identifier: Apache-2.0

package sockmeta

import (
	"net"
	"net/netip"
	"runtime"
	"sync"
	"syscall"
	"weak"
)

// A PeerListener is a TCPListener that finds the connections that it accepted by
// their addresses, for libraries that tell their users no more than these: gRPC's
// stats handlers, DNS servers. Its methods are those of TCPListener, and its
// connections are plain *TCPConns.
//
// Multiple goroutines may call its methods at the same time.
type PeerListener struct {
	*TCPListener
	accepted *acceptedConns
}

// NewPeerListener returns a PeerListener on l. What l itself accepts is not found.
func NewPeerListener(l *TCPListener) *PeerListener {
	return &PeerListener{l, &acceptedConns{conns: make(map[endpoints]weak.Pointer[TCPConn])}}
}

// Accept waits for the next connection and returns it, a *TCPConn.
func (l *PeerListener) Accept() (net.Conn, error) {
	c, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	return c, nil
}

// AcceptTCP waits for the next connection and returns it.
func (l *PeerListener) AcceptTCP() (*TCPConn, error) {
	if l == nil || l.accepted == nil {
		return nil, syscall.EINVAL
	}
	c, err := l.TCPListener.AcceptTCP()
	if err != nil {
		return nil, err
	}
	l.accepted.add(c)
	return c, nil
}

// Conn returns the connection between local and peer, its LocalAddr and its
// RemoteAddr. It finds those that somebody still refers to; metadata calls on one
// that is closed return net.ErrClosed. Where a connection came with the same
// addresses as an earlier one, it is the newer one.
func (l *PeerListener) Conn(local, peer net.Addr) (*TCPConn, bool) {
	key, ok := endpointsOf(local, peer)
	if !ok || l == nil || l.accepted == nil {
		return nil, false
	}
	return l.accepted.find(key)
}

// endpoints are the addresses of a connection. IPv4 addresses are not mapped.
type endpoints struct{ local, peer netip.AddrPort }

func endpointsOf(local, peer net.Addr) (endpoints, bool) {
	l, ok := local.(*net.TCPAddr)
	p, ok2 := peer.(*net.TCPAddr)
	if !ok || !ok2 || l == nil || p == nil {
		return endpoints{}, false
	}
	return endpoints{peerKey(l.AddrPort()), peerKey(p.AddrPort())}, true
}

// acceptedConns do not keep connections from being collected: that is when they
// leave, as nobody tells of their end.
type acceptedConns struct {
	mu    sync.Mutex
	conns map[endpoints]weak.Pointer[TCPConn]
}

func (a *acceptedConns) add(c *TCPConn) {
	key, ok := endpointsOf(c.LocalAddr(), c.RemoteAddr())
	if !ok {
		return
	}
	p := weak.Make(c)
	a.mu.Lock()
	a.conns[key] = p
	a.mu.Unlock()
	runtime.AddCleanup(c, func(p weak.Pointer[TCPConn]) { a.remove(key, p) }, p)
}

func (a *acceptedConns) find(key endpoints) (*TCPConn, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.conns[key].Value()
	return c, c != nil
}

// remove removes a connection, unless a newer one has taken its place.
func (a *acceptedConns) remove(key endpoints, p weak.Pointer[TCPConn]) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conns[key] == p {
		delete(a.conns, key)
	}
}

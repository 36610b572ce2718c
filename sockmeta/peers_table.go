// SPDX-License-Identifier: Apache-2.0

package sockmeta

import (
	"net"
	"net/netip"
	"sync"
)

// A datagram is what ReadMetadata said of one.
type datagram struct {
	md  Metadata
	err error
}

// peerTable knows the datagrams of a bounded number of peers. The one that was
// silent longest makes room for another.
type peerTable struct {
	max int

	mu    sync.Mutex
	peers map[netip.AddrPort]*peer
	// ring joins the peers by the time of their newest datagrams: the newest is
	// ring.next, the oldest ring.prev.
	ring peer
}

type peer struct {
	addr            netip.AddrPort
	udp             *net.UDPAddr
	opening, latest datagram
	prev, next      *peer
}

func (t *peerTable) init(limit int) {
	t.max = limit
	t.peers = make(map[netip.AddrPort]*peer)
	t.ring.prev, t.ring.next = &t.ring, &t.ring
}

// peerKey is the peer's address in the form that the table has it in.
func peerKey(addr netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
}

// remember notes that a datagram came from addr, and returns that as a UDPAddr,
// which is shared. It copies md, and allocates nothing where the peer is known.
func (t *peerTable) remember(addr netip.AddrPort, md *Metadata, err error) *net.UDPAddr {
	key := peerKey(addr)
	t.mu.Lock()
	defer t.mu.Unlock()
	p, known := t.peers[key]
	switch {
	case known:
		p.unlink()
	case len(t.peers) < t.max:
		p = new(peer)
	default:
		p = t.ring.prev
		p.unlink()
		delete(t.peers, p.addr)
	}
	p.link(&t.ring)
	p.latest.md, p.latest.err = *md, err
	if !known {
		p.addr, p.opening = key, p.latest
		p.udp = net.UDPAddrFromAddrPort(addr)
		t.peers[key] = p
	}
	return p.udp
}

func (t *peerTable) lookup(addr netip.AddrPort) (opening, latest datagram, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.peers[peerKey(addr)]
	if !ok {
		return opening, latest, false
	}
	return p.opening, p.latest, true
}

func (t *peerTable) forget(addr netip.AddrPort) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p, ok := t.peers[peerKey(addr)]; ok {
		p.unlink()
		delete(t.peers, p.addr)
	}
}

func (t *peerTable) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.peers)
}

// link puts p behind other.
func (p *peer) link(other *peer) {
	p.prev, p.next = other, other.next
	p.prev.next, p.next.prev = p, p
}

func (p *peer) unlink() {
	p.prev.next, p.next.prev = p.next, p.prev
	p.prev, p.next = nil, nil
}

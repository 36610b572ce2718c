// SPDX-License-Identifier: Apache-2.0

package sockmeta

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
)

func testPeer(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(n >> 8)}), uint16(n))
}

func marked(mark uint32) *Metadata {
	md := new(Metadata)
	md.SetMark(mark)
	return md
}

func newTestTable(limit int) *peerTable {
	t := new(peerTable)
	t.init(limit)
	return t
}

// wantPeer holds a peer to the marks of its first and its newest datagram.
func (t *peerTable) wantPeer(tb testing.TB, peer netip.AddrPort, opening, latest uint32) {
	tb.Helper()
	o, l, ok := t.lookup(peer)
	om, _ := o.md.Mark()
	lm, _ := l.md.Mark()
	if !ok || om != opening || lm != latest {
		tb.Errorf("%v: known %v, opened with %d, newest %d, want %d and %d", peer, ok, om, lm, opening, latest)
	}
}

func (t *peerTable) wantUnknown(tb testing.TB, peer netip.AddrPort) {
	tb.Helper()
	if o, l, ok := t.lookup(peer); ok || !o.md.IsEmpty() || !l.md.IsEmpty() {
		tb.Errorf("%v is known: %v, %v", peer, o.md, l.md)
	}
}

func TestPeerTable(t *testing.T) {
	table := newTestTable(3)
	a, b, c, d := testPeer(1), testPeer(2), testPeer(3), testPeer(4)
	table.wantUnknown(t, a)
	for i, p := range []netip.AddrPort{a, b, a, c, a} {
		table.remember(p, marked(uint32(i+1)), nil)
	}
	table.wantPeer(t, a, 1, 5)
	table.wantPeer(t, b, 2, 2)
	table.wantPeer(t, c, 4, 4)

	// b has been silent longest, although it is not the oldest, and asking about a
	// peer does not count.
	table.remember(d, marked(6), nil)
	table.wantUnknown(t, b)
	table.wantPeer(t, a, 1, 5)
	table.wantPeer(t, d, 6, 6)

	table.forget(a)
	table.forget(a)
	table.wantUnknown(t, a)
	table.remember(a, marked(7), nil)
	table.wantPeer(t, a, 7, 7)
	// Now c, d, a: what was forgotten has left no hole.
	table.remember(b, marked(8), nil)
	table.wantUnknown(t, c)
	if n := table.len(); n != 3 {
		t.Errorf("%d peers are known, want 3", n)
	}
}

// TestPeerTableErrors remembers why there is no metadata, and nothing of what was
// known before.
func TestPeerTableErrors(t *testing.T) {
	table := newTestTable(3)
	table.remember(testPeer(1), marked(1), nil)
	table.remember(testPeer(1), new(Metadata), ErrOverrun)
	o, l, ok := table.lookup(testPeer(1))
	if !ok || o.err != nil || l.err != ErrOverrun || !l.md.IsEmpty() {
		t.Errorf("known %v, opening %v, newest %v with %v", ok, o.err, l.err, l.md)
	}
}

// TestPeerTableMapped has one peer for both forms of an IPv4 address, and others for
// other ports and zones.
func TestPeerTableMapped(t *testing.T) {
	table := newTestTable(10)
	mapped := netip.MustParseAddrPort("[::ffff:192.0.2.1]:5")
	table.remember(mapped, marked(1), nil)
	table.wantPeer(t, netip.MustParseAddrPort("192.0.2.1:5"), 1, 1)
	table.remember(netip.MustParseAddrPort("192.0.2.1:5"), marked(2), nil)
	table.wantPeer(t, mapped, 1, 2)
	table.wantUnknown(t, netip.MustParseAddrPort("192.0.2.1:6"))
	table.remember(netip.MustParseAddrPort("[fe80::1%a]:5"), marked(3), nil)
	table.wantUnknown(t, netip.MustParseAddrPort("[fe80::1%b]:5"))
	table.wantUnknown(t, netip.MustParseAddrPort("[fe80::1]:5"))
}

// TestPeerTableBounded holds the table to its size under a flood of sources, among
// which a peer that goes on talking stays.
func TestPeerTableBounded(t *testing.T) {
	const limit = 100
	table := newTestTable(limit)
	steady := testPeer(0)
	table.remember(steady, marked(1), nil)
	for i := range 10 * limit {
		table.remember(testPeer(i+1), marked(2), nil)
		if i%(limit/2) == 0 {
			table.remember(steady, marked(3), nil)
		}
		if n := table.len(); n > limit {
			t.Fatalf("%d peers are known, want %d at most", n, limit)
		}
	}
	table.wantPeer(t, steady, 1, 3)
	seen := 0
	for p := table.ring.next; p != &table.ring; p = p.next {
		if p.next.prev != p || table.peers[p.addr] != p {
			t.Fatalf("the ring is broken at %v", p.addr)
		}
		seen++
	}
	if seen != limit || len(table.peers) != limit {
		t.Errorf("%d peers in the ring, %d in the map, want %d", seen, len(table.peers), limit)
	}
}

// TestPeerTableRaces has many goroutines at a table that is too small: what a peer
// is said to have is always its own.
func TestPeerTableRaces(t *testing.T) {
	table := newTestTable(8)
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			for i := range 2000 {
				n := uint32(i*7+g) % 16
				peer := testPeer(int(n))
				switch i % 3 {
				case 0:
					table.remember(peer, marked(n), nil)
				case 1:
					if o, l, ok := table.lookup(peer); ok {
						om, _ := o.md.Mark()
						lm, _ := l.md.Mark()
						if om != n || lm != n {
							t.Errorf("peer %d has marks %d and %d", n, om, lm)
						}
					}
				case 2:
					table.forget(peer)
				}
			}
		})
	}
	all.Wait()
}

func TestPeerTableAllocs(t *testing.T) {
	table := newTestTable(4)
	md := marked(1)
	peer := testPeer(1)
	table.remember(peer, md, nil)
	if n := testing.AllocsPerRun(100, func() { table.remember(peer, md, nil) }); n != 0 {
		t.Errorf("%v allocations for a datagram of a known peer", n)
	}
}

func BenchmarkPeerTable(b *testing.B) {
	for _, peers := range []int{1, 64, 4096} {
		b.Run(fmt.Sprint(peers), func(b *testing.B) {
			table := newTestTable(peers)
			md := marked(1)
			addrs := make([]netip.AddrPort, peers)
			for i := range addrs {
				addrs[i] = testPeer(i)
				table.remember(addrs[i], md, nil)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				table.remember(addrs[i*1031%peers], md, nil)
			}
		})
	}
}

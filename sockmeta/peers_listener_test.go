// SPDX-License-Identifier: Apache-2.0

package sockmeta

import (
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"
	"weak"
)

// TestAcceptedReused has a connection with the addresses of an earlier one: the end of
// the earlier one does not concern it.
func TestAcceptedReused(t *testing.T) {
	a := &acceptedConns{conns: make(map[endpoints]weak.Pointer[TCPConn])}
	key := endpoints{netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:2")}
	earlier, newer := new(TCPConn), new(TCPConn)
	a.conns[key] = weak.Make(newer)
	a.remove(key, weak.Make(earlier))
	if c, ok := a.find(key); !ok || c != newer {
		t.Errorf("found %v, %v", c, ok)
	}
	a.remove(key, weak.Make(newer))
	if c, ok := a.find(key); ok {
		t.Errorf("found %v, which was removed", c)
	}
}

// TestAcceptedBounded leaves nothing of connections that are gone.
func TestAcceptedBounded(t *testing.T) {
	inner, err := ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	l := NewPeerListener(inner)
	defer l.Close()
	for range 10 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		a, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Close(), a.Close()
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		runtime.GC()
		l.accepted.mu.Lock()
		n := len(l.accepted.conns)
		l.accepted.mu.Unlock()
		if n == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d connections are remembered", n)
		}
		time.Sleep(time.Millisecond)
	}
}

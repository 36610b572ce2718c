// SPDX-License-Identifier: Apache-2.0

package sockmeta_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/sockmeta/sockmeta-go/sockmeta"
)

func newReplyConn(t *testing.T, network, address string) *sockmeta.ReplyConn {
	t.Helper()
	c, err := sockmeta.ListenPacket(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	r, err := sockmeta.NewReplyConn(c.(*sockmeta.UDPConn))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestReplySource asks sockets on all addresses by each of several, and looks where
// the answers come from.
func TestReplySource(t *testing.T) {
	for _, tt := range []struct {
		listen, client, to string
		from               string // "": to
	}{
		{"udp4 :0", "127.0.0.1", "127.0.0.77", ""},
		{"udp4 :0", "127.0.0.1", "127.0.0.1", ""},
		{"udp4 127.0.0.77:0", "127.0.0.1", "127.0.0.77", ""},
		{"udp :0", "127.0.0.1", "127.0.0.77", ""},
		{"udp :0", "::1", "::1", ""},
		{"udp6 :0", "::1", "::1", ""},
		{"udp6 [::1]:0", "::1", "::1", ""},
		// An answer cannot come from a broadcast address.
		{"udp4 :0", "127.0.0.1", "127.255.255.255", "127.0.0.1"},
		{"udp :0", "127.0.0.1", "127.255.255.255", "127.0.0.1"},
	} {
		t.Run(fmt.Sprint(tt.listen, " ", tt.to), func(t *testing.T) {
			var network, address string
			if _, err := fmt.Sscan(tt.listen, &network, &address); err != nil {
				t.Fatal(err)
			}
			server := newReplyConn(t, network, address)
			client, err := net.ListenPacket("udp", netip.AddrPortFrom(netip.MustParseAddr(tt.client), 0).String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			if err := client.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			port := server.LocalAddr().(*net.UDPAddr).Port
			if _, err := client.WriteTo([]byte("hello"), &net.UDPAddr{IP: net.ParseIP(tt.to), Port: port}); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 100)
			n, peer, err := server.ReadFrom(b)
			if err != nil || string(b[:n]) != "hello" || peer.String() != client.LocalAddr().String() {
				t.Fatalf("read %q from %v, %v", b[:n], peer, err)
			}
			if n, err := server.WriteTo([]byte("answer"), peer); n != 6 || err != nil {
				t.Fatalf("wrote %d, %v", n, err)
			}
			n, from, err := client.ReadFrom(b)
			if err != nil {
				t.Fatal(err)
			}
			want := tt.from
			if want == "" {
				want = tt.to
			}
			if a := from.(*net.UDPAddr); string(b[:n]) != "answer" || a.IP.String() != want || a.Port != port {
				t.Errorf("%q comes from %v, want it from %s, port %d", b[:n], from, want, port)
			}
		})
	}
}

// TestReplyOther sends to addresses that did not come from the socket.
func TestReplyOther(t *testing.T) {
	server, other := newReplyConn(t, "udp4", ":0"), newReplyConn(t, "udp4", ":0")
	client := listenLoopback(t)
	to := func(c *sockmeta.ReplyConn) net.Addr {
		return &net.UDPAddr{IP: net.IPv4(127, 0, 0, 77), Port: c.LocalAddr().(*net.UDPAddr).Port}
	}
	if _, err := client.WriteTo([]byte("hello"), to(other)); err != nil {
		t.Fatal(err)
	}
	_, peer, err := other.ReadFrom(make([]byte, 100))
	if err != nil {
		t.Fatal(err)
	}
	// The kernel chooses where they come from.
	for name, addr := range map[string]net.Addr{"another socket's": peer, "a plain one": client.LocalAddr()} {
		if _, err := server.WriteTo([]byte("x"), addr); err != nil {
			t.Fatal(err)
		}
		_, from, err := client.ReadFrom(make([]byte, 100))
		if err != nil || !from.(*net.UDPAddr).IP.Equal(net.IPv4(127, 0, 0, 1)) {
			t.Errorf("%s: datagram from %v, %v", name, from, err)
		}
	}
}

// TestFromAddr finds the metadata of each of several datagrams, whichever order they
// are asked for in, by their addresses and copies of them.
func TestFromAddr(t *testing.T) {
	server := newReplyConn(t, "udp4", "127.0.0.1:0")
	sender := listenLoopback(t)
	supported := server.Support().Err() == nil
	var peers []*net.UDPAddr
	for i := range 5 {
		var out sockmeta.Metadata
		out.SetPriority(uint32(i + 1))
		to := server.LocalAddr().(*net.UDPAddr).AddrPort()
		if _, err := sender.WriteMetadata([]byte("hello"), &out, to); err != nil && supported {
			t.Fatal(err)
		}
		_, peer, err := server.ReadFrom(make([]byte, 100))
		if err != nil {
			t.Fatal(err)
		}
		twin := *peer.(*net.UDPAddr)
		peers = append(peers, &twin)
	}
	for i, peer := range peers {
		md, err := sockmeta.FromAddr(peer)
		if !supported {
			if !errors.Is(err, sockmeta.ErrNotSupported) {
				t.Errorf("error is %v", err)
			}
			continue
		}
		if prio, _ := md.Priority(); err != nil || prio != uint32(i+1) {
			t.Errorf("datagram %d: %v, %v", i, md, err)
		}
	}
	for _, addr := range []net.Addr{nil, (*net.UDPAddr)(nil), &net.UDPAddr{}, &net.TCPAddr{}, sender.LocalAddr()} {
		md, err := sockmeta.FromAddr(addr)
		if !errors.Is(err, sockmeta.ErrNoMetadata) || !md.IsEmpty() {
			t.Errorf("%T: %v, %v", addr, md, err)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package clients

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// packetConns are what TestPacketConn holds to the contract of net.PacketConn. The
// first is what all others are measured by.
var packetConns = map[string]func(network, address string) (net.PacketConn, error){
	"net":      net.ListenPacket,
	"sockmeta": sockmeta.ListenPacket,
	"PeerConn": func(network, address string) (net.PacketConn, error) {
		c, err := sockmeta.ListenPacket(network, address)
		if err != nil {
			return nil, err
		}
		return sockmeta.NewPeerConn(c.(*sockmeta.UDPConn), sockmeta.PeerOptions{}), nil
	},
	"ReplyConn": func(network, address string) (net.PacketConn, error) {
		c, err := sockmeta.ListenPacket(network, address)
		if err != nil {
			return nil, err
		}
		return sockmeta.NewReplyConn(c.(*sockmeta.UDPConn))
	},
}

// TestPacketConn is for net.PacketConn what nettest is for net.Conn.
func TestPacketConn(t *testing.T) {
	var want []string
	for name := range packetConns {
		for _, family := range []string{"ipv4", "ipv6", "dual"} {
			for part := range packetConnTests {
				want = append(want, fmt.Sprintf("TestPacketConns/%s/%s/%s", name, family, part))
			}
		}
	}
	again(t, "^TestPacketConns$", want)
}

type packetConnTest func(t *testing.T, listen func() net.PacketConn)

var packetConnTests = map[string]packetConnTest{
	"Addresses":      testAddresses,
	"PastDeadline":   testPastDeadline,
	"MovedDeadline":  testMovedDeadline,
	"CloseUnblocks":  testCloseUnblocks,
	"Concurrency":    testConcurrency,
	"Truncation":     testTruncation,
	"ZeroLength":     testZeroLength,
	"EmptyBuffer":    testEmptyBuffer,
	"RacyBuffer":     testRacyBuffer,
	"ErrorsOfPlaces": testErrors,
}

func TestPacketConns(t *testing.T) {
	inAgain(t)
	for name, open := range packetConns {
		for family, address := range map[string]string{"ipv4": "127.0.0.1:0", "ipv6": "[::1]:0", "dual": ":0"} {
			for part, test := range packetConnTests {
				t.Run(name+"/"+family+"/"+part, func(t *testing.T) {
					test(t, func() net.PacketConn {
						c, err := open("udp", address)
						must(t, err)
						t.Cleanup(func() { _ = c.Close() })
						must(t, c.SetDeadline(time.Now().Add(timeout)))
						return c
					})
				})
			}
		}
	}
}

// reach is the address at which another socket of this host reaches c.
func reach(c net.PacketConn) net.Addr {
	a := *c.LocalAddr().(*net.UDPAddr)
	if a.IP.IsUnspecified() {
		a.IP = net.IPv4(127, 0, 0, 1)
	}
	return &a
}

func testAddresses(t *testing.T, listen func() net.PacketConn) {
	c1, c2 := listen(), listen()
	send(t, c1, []byte("hello"), reach(c2))
	b, from := receive(t, c2, 100)
	u, ok := from.(*net.UDPAddr)
	if string(b) != "hello" || !ok || u.String() != reach(c1).String() || u.Network() != "udp" {
		t.Errorf("read %q from %T %v, want it from %v", b, from, from, reach(c1))
	}
	send(t, c2, []byte("back"), from)
	if b, from := receive(t, c1, 100); string(b) != "back" || from.String() != reach(c2).String() {
		t.Errorf("read %q from %v, want the answer of %v", b, from, reach(c2))
	}
}

func testPastDeadline(t *testing.T, listen func() net.PacketConn) {
	c1, c2 := listen(), listen()
	past := time.Unix(1, 0)
	must(t, c1.SetReadDeadline(past))
	n, from, err := c1.ReadFrom(make([]byte, 10))
	if n != 0 || from != nil {
		t.Errorf("read %d bytes from %v", n, from)
	}
	wantTimeout(t, err)
	send(t, c1, []byte("hello"), reach(c2))
	must(t, c1.SetWriteDeadline(past))
	n, err = c1.WriteTo([]byte("late"), reach(c2))
	if n != 0 {
		t.Errorf("wrote %d bytes", n)
	}
	wantTimeout(t, err)
	must(t, c1.SetDeadline(time.Time{}))
	send(t, c1, []byte("again"), reach(c2))
	for _, want := range []string{"hello", "again"} {
		if b, _ := receive(t, c2, 100); string(b) != want {
			t.Errorf("read %q, want %q", b, want)
		}
	}
	send(t, c2, []byte("back"), reach(c1))
	if b, _ := receive(t, c1, 100); string(b) != "back" {
		t.Errorf("read %q after the deadline was taken back", b)
	}
}

func testMovedDeadline(t *testing.T, listen func() net.PacketConn) {
	c := listen()
	got := make(chan error)
	go func() {
		_, _, err := c.ReadFrom(make([]byte, 10))
		got <- err
	}()
	must(t, c.SetReadDeadline(time.Now().Add(time.Millisecond)))
	wantTimeout(t, <-got)
}

func testCloseUnblocks(t *testing.T, listen func() net.PacketConn) {
	c := listen()
	const readers = 4
	var running sync.WaitGroup
	got := make(chan error)
	for range readers {
		running.Add(1)
		go func() {
			running.Done()
			_, _, err := c.ReadFrom(make([]byte, 10))
			got <- err
		}()
	}
	running.Wait()
	must(t, c.Close())
	for range readers {
		wantClosed(t, <-got)
	}
	_, _, err := c.ReadFrom(make([]byte, 10))
	wantClosed(t, err)
	_, err = c.WriteTo([]byte("x"), reach(c))
	wantClosed(t, err)
	wantClosed(t, c.SetDeadline(time.Now()))
	wantClosed(t, c.Close())
}

// testConcurrency has several readers of a socket answer several peers, each of which
// has one message under way, so that nothing is lost.
func testConcurrency(t *testing.T, listen func() net.PacketConn) {
	server := listen()
	var readers, peers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			b := make([]byte, 100)
			for {
				n, from, err := server.ReadFrom(b)
				if err != nil {
					wantClosed(t, err)
					return
				}
				if _, err := server.WriteTo(b[:n], from); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for peer := range 8 {
		c := listen()
		peers.Go(func() {
			want, b := make([]byte, 16), make([]byte, 100)
			binary.BigEndian.PutUint64(want, uint64(peer))
			for i := range testutil.Scale(2000) {
				binary.BigEndian.PutUint64(want[8:], uint64(i))
				if _, err := c.WriteTo(want, reach(server)); err != nil {
					t.Error(err)
					return
				}
				n, from, err := c.ReadFrom(b)
				if err != nil || !bytes.Equal(b[:n], want) || from.String() != reach(server).String() {
					t.Errorf("peer %d, message %d: %x from %v, %v", peer, i, b[:n], from, err)
					return
				}
			}
		})
	}
	peers.Wait()
	must(t, server.Close())
	readers.Wait()
}

func testTruncation(t *testing.T, listen func() net.PacketConn) {
	c1, c2 := listen(), listen()
	long := bytes.Repeat([]byte("0123456789"), 100)
	send(t, c1, long, reach(c2))
	send(t, c1, []byte("next"), reach(c2))
	if b, from := receive(t, c2, 7); string(b) != "0123456" || from.String() != reach(c1).String() {
		t.Errorf("read %q from %v", b, from)
	}
	if b, _ := receive(t, c2, 7); string(b) != "next" {
		t.Errorf("read %q, want the next datagram", b)
	}
}

func testZeroLength(t *testing.T, listen func() net.PacketConn) {
	c1, c2 := listen(), listen()
	send(t, c1, nil, reach(c2))
	send(t, c1, []byte("next"), reach(c2))
	if b, from := receive(t, c2, 100); len(b) != 0 || from.String() != reach(c1).String() {
		t.Errorf("read %q from %v, want an empty datagram", b, from)
	}
	if b, _ := receive(t, c2, 100); string(b) != "next" {
		t.Errorf("read %q, want the next datagram", b)
	}
}

// testEmptyBuffer: ReadFrom takes a datagram even where it has no room for it.
func testEmptyBuffer(t *testing.T, listen func() net.PacketConn) {
	c1, c2 := listen(), listen()
	send(t, c1, []byte("first"), reach(c2))
	send(t, c1, []byte("next"), reach(c2))
	if b, from := receive(t, c2, 0); len(b) != 0 || from.String() != reach(c1).String() {
		t.Errorf("read %q from %v", b, from)
	}
	if b, _ := receive(t, c2, 100); string(b) != "next" {
		t.Errorf("read %q, want the next datagram", b)
	}
}

// testRacyBuffer uses a buffer again as soon as ReadFrom and WriteTo have returned.
func testRacyBuffer(t *testing.T, listen func() net.PacketConn) {
	c := listen()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			b := make([]byte, 100)
			for range testutil.Scale(1000) {
				if err := c.SetReadDeadline(time.Now().Add(50 * time.Microsecond)); err != nil {
					t.Error(err)
				}
				if _, _, err := c.ReadFrom(b); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error(err)
				}
				clear(b)
				if _, err := c.WriteTo(b, reach(c)); err != nil {
					t.Error(err)
				}
				clear(b)
			}
		})
	}
	all.Wait()
}

func testErrors(t *testing.T, listen func() net.PacketConn) {
	c := listen()
	for _, addr := range []net.Addr{&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}, (*net.UDPAddr)(nil), nil} {
		n, err := c.WriteTo([]byte("x"), addr)
		var op *net.OpError
		if n != 0 || !errors.As(err, &op) || op.Op != "write" {
			t.Errorf("to %T: %d, %v", addr, n, err)
		}
	}
}

func send(t *testing.T, c net.PacketConn, b []byte, to net.Addr) {
	t.Helper()
	n, err := c.WriteTo(b, to)
	if err != nil || n != len(b) {
		t.Fatalf("wrote %d of %d bytes, %v", n, len(b), err)
	}
}

func receive(t *testing.T, c net.PacketConn, room int) ([]byte, net.Addr) {
	t.Helper()
	b := make([]byte, room)
	n, from, err := c.ReadFrom(b)
	must(t, err)
	return b[:n], from
}

func wantTimeout(t *testing.T, err error) {
	t.Helper()
	var ne net.Error
	if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &ne) || !ne.Timeout() {
		t.Errorf("error is %v, want a timeout", err)
	}
}

func wantClosed(t *testing.T, err error) {
	t.Helper()
	var op *net.OpError
	if !errors.Is(err, net.ErrClosed) || !errors.As(err, &op) {
		t.Errorf("error is %v, want a *net.OpError that is net.ErrClosed", err)
	}
}

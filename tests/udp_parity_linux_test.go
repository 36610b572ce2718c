// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// A transcript is what a program saw of a connection.
type transcript []string

func (tr *transcript) add(format string, args ...any) {
	*tr = append(*tr, fmt.Sprintf(format, args...))
}

func (tr transcript) compare(t *testing.T, plain transcript) {
	t.Helper()
	if len(tr) != len(plain) {
		t.Errorf("%d lines, plain socket %d", len(tr), len(plain))
	}
	for i := range min(len(tr), len(plain)) {
		if tr[i] != plain[i] {
			t.Errorf("\n      %s\nplain %s", tr[i], plain[i])
		}
	}
}

// udpScripts note in a transcript what a connection does.
var udpScripts = []struct {
	name string
	run  func(t *testing.T, tr *transcript, c udpConn, client *net.UDPConn)
}{
	{"receive", receiveScript},
	{"deadlines", deadlineScript},
	{"send", sendScript},
	{"close", closeScript},
}

// TestUDPParity runs the same script with a plain net.UDPConn and with the
// wrapper. They see the same.
func TestUDPParity(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	for _, script := range udpScripts {
		t.Run(script.name, func(t *testing.T) {
			p := testutil.Pair(t)
			testutil.EnterCgroup(t)
			attachEchoUDP(t, p)
			for _, k := range udpKinds(p) {
				t.Run(k.name, func(t *testing.T) {
					run := func(open openUDP) (tr transcript) {
						c := k.serve(t, p, open)
						client := k.dial(t, p)
						defer client.Close()
						defer c.Close()
						script.run(t, &tr, c, client)
						return tr
					}
					plain := run(openPlain)
					run(openMeta).compare(t, plain)
					run(openWrapped).compare(t, plain)
				})
			}
		})
	}
}

func receiveScript(t *testing.T, tr *transcript, c udpConn, client *net.UDPConn) {
	tr.add("local %s, remote %s", describeAddr(c.LocalAddr()), describeAddr(c.RemoteAddr()))
	tr.add("buffers: %v, %v", c.SetReadBuffer(1<<16), c.SetWriteBuffer(1<<16))
	for _, r := range udpReads {
		for _, tt := range []struct {
			payload string
			room    int
		}{
			{"payload", 64},
			{"payload", 7}, // just fits
			{"payload", 3}, // cut
			{"payload", 0}, // Read leaves it, the others throw it away
			{"", 64},
			{"", 0},
		} {
			send(t, client, tt.payload)
			send(t, client, "end")
			// Until the second one, so that the next round starts anew.
			for range 3 {
				b := make([]byte, tt.room)
				n, rest, err := r.read(c, b)
				tr.add("%s of %q with room for %d: %d %q, %s, %s", r.name, tt.payload, tt.room, n, b[:n], rest, describeErr(err))
				b = make([]byte, 64)
				n, rest, err = r.read(c, b)
				tr.add("%s, then: %d %q, %s, %s", r.name, n, b[:n], rest, describeErr(err))
				if string(b[:n]) == "end" {
					break
				}
			}
		}
	}
	send(t, client, "for the file")
	f, err := c.File()
	must(t, err)
	defer f.Close()
	fc, err := net.FilePacketConn(f)
	must(t, err)
	defer fc.Close()
	b := make([]byte, 64)
	n, addr, err := fc.ReadFrom(b)
	tr.add("File: %q from %s, %s", b[:n], describeAddr(addr), describeErr(err))
}

func deadlineScript(t *testing.T, tr *transcript, c udpConn, client *net.UDPConn) {
	past := time.Now().Add(-time.Hour)
	for _, r := range udpReads {
		b := make([]byte, 64)
		must(t, c.SetReadDeadline(past))
		n, rest, err := r.read(c, b)
		tr.add("%s past its deadline: %d, %s, %s", r.name, n, rest, describeErr(err))
		n, rest, err = r.read(c, nil)
		tr.add("%s of nothing past its deadline: %d, %s, %s", r.name, n, rest, describeErr(err))

		must(t, c.SetDeadline(time.Now().Add(10*time.Millisecond)))
		n, rest, err = r.read(c, b)
		tr.add("%s until its deadline: %d, %s, %s", r.name, n, rest, describeErr(err))

		must(t, c.SetDeadline(time.Now().Add(udpPatience)))
		send(t, client, "payload")
		n, rest, err = r.read(c, b)
		tr.add("%s after that: %d %q, %s, %s", r.name, n, b[:n], rest, describeErr(err))
	}
	must(t, c.SetWriteDeadline(past))
	_, err := c.Write([]byte("payload"))
	tr.add("Write past its deadline: %s", describeErr(err))
	_, err = c.WriteTo([]byte("payload"), client.LocalAddr())
	tr.add("WriteTo past its deadline: %s", describeErr(err))
}

func sendScript(t *testing.T, tr *transcript, c udpConn, client *net.UDPConn) {
	must(t, client.SetReadDeadline(time.Now().Add(udpPatience)))
	peer := client.LocalAddr().(*net.UDPAddr)
	peerPort := peer.AddrPort()
	other := &net.UDPAddr{IP: net.IPv6loopback, Port: peer.Port}
	if peer.IP.To4() == nil {
		other.IP = net.IPv4(127, 0, 0, 1)
	}
	payload := []byte("payload")
	for _, w := range []struct {
		name  string
		write func() (int, int, error)
	}{
		{"Write", func() (int, int, error) { n, err := c.Write(payload); return n, 0, err }},
		{"Write nothing", func() (int, int, error) { n, err := c.Write(nil); return n, 0, err }},
		{"Write too much", func() (int, int, error) { n, err := c.Write(make([]byte, 1<<16)); return n, 0, err }},
		{"WriteTo", func() (int, int, error) { n, err := c.WriteTo(payload, peer); return n, 0, err }},
		{"WriteTo nil", func() (int, int, error) { n, err := c.WriteTo(payload, nil); return n, 0, err }},
		{"WriteTo TCP", func() (int, int, error) { n, err := c.WriteTo(payload, &net.TCPAddr{}); return n, 0, err }},
		{"WriteTo the other family", func() (int, int, error) { n, err := c.WriteTo(payload, other); return n, 0, err }},
		{"WriteToUDP", func() (int, int, error) { n, err := c.WriteToUDP(payload, peer); return n, 0, err }},
		{"WriteToUDP nil", func() (int, int, error) { n, err := c.WriteToUDP(payload, nil); return n, 0, err }},
		{"WriteToUDP too much", func() (int, int, error) { n, err := c.WriteToUDP(make([]byte, 1<<16), peer); return n, 0, err }},
		{"WriteToUDPAddrPort", func() (int, int, error) { n, err := c.WriteToUDPAddrPort(payload, peerPort); return n, 0, err }},
		{"WriteToUDPAddrPort zero", func() (int, int, error) {
			n, err := c.WriteToUDPAddrPort(payload, netip.AddrPort{})
			return n, 0, err
		}},
		{"WriteMsgUDP", func() (int, int, error) { return c.WriteMsgUDP(payload, nil, peer) }},
		{"WriteMsgUDP nil", func() (int, int, error) { return c.WriteMsgUDP(payload, nil, nil) }},
		{"WriteMsgUDP garbage", func() (int, int, error) { return c.WriteMsgUDP(payload, make([]byte, 16), nil) }},
		{"WriteMsgUDPAddrPort", func() (int, int, error) { return c.WriteMsgUDPAddrPort(payload, nil, peerPort) }},
		{"WriteMsgUDPAddrPort zero", func() (int, int, error) { return c.WriteMsgUDPAddrPort(payload, nil, netip.AddrPort{}) }},
		{"WriteMsgUDPAddrPort TTL", func() (int, int, error) { return c.WriteMsgUDPAddrPort(payload, hopsMessage(peer), peerPort) }},
	} {
		n, oobn, err := w.write()
		tr.add("%s: %d, %d, %s", w.name, n, oobn, describeErr(err))
		// What was sent to the other family may be answered by an error.
		_ = clearError(t, c)
		if err == nil && w.name != "WriteTo the other family" {
			b := make([]byte, 64)
			n, err := client.Read(b)
			tr.add("%s arrived: %q, %v", w.name, b[:n], err)
		}
	}
}

// hopsMessage is a control message that sets the TTL or hop limit.
func hopsMessage(to *net.UDPAddr) []byte {
	hops := binary.NativeEndian.AppendUint32(nil, 7)
	if to.IP.To4() != nil {
		return cmsg.Append(nil, unix.IPPROTO_IP, unix.IP_TTL, hops)
	}
	return cmsg.Append(nil, unix.IPPROTO_IPV6, unix.IPV6_HOPLIMIT, hops)
}

func clearError(t *testing.T, c udpConn) (pending int) {
	t.Helper()
	withFD(t, c, func(fd int) (err error) {
		pending, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		return err
	})
	return pending
}

func closeScript(t *testing.T, tr *transcript, c udpConn, _ *net.UDPConn) {
	type result struct {
		n    int
		rest string
		err  error
	}
	var results []chan result
	for _, r := range udpReads {
		done := make(chan result, 1)
		results = append(results, done)
		go func() {
			n, rest, err := r.read(c, make([]byte, 64))
			done <- result{n, rest, err}
		}()
	}
	// Let them block; where one is late it finds the connection closed, and
	// says the same.
	time.Sleep(20 * time.Millisecond)
	tr.add("Close: %s", describeErr(c.Close()))
	for i, r := range udpReads {
		select {
		case got := <-results[i]:
			if strings.HasPrefix(r.name, "ReadMsg") && got.n == -1 {
				got.n = 0 // net says -1 where it had to wait, and waits for one reader only
			}
			tr.add("%s during Close: %d, %s, %s", r.name, got.n, got.rest, describeErr(got.err))
		case <-time.After(udpPatience):
			t.Fatalf("%s: still blocked after Close", r.name)
		}
		n, rest, err := r.read(c, make([]byte, 64))
		tr.add("%s after Close: %d, %s, %s", r.name, n, rest, describeErr(err))
		n, rest, err = r.read(c, nil)
		tr.add("%s of nothing after Close: %d, %s, %s", r.name, n, rest, describeErr(err))
	}
	tr.add("Close again: %s", describeErr(c.Close()))
	tr.add("local %s, remote %s", describeAddr(c.LocalAddr()), describeAddr(c.RemoteAddr()))
	_, err := c.Write([]byte("payload"))
	tr.add("Write: %s", describeErr(err))
	tr.add("SetDeadline: %s", describeErr(c.SetDeadline(time.Time{})))
	tr.add("SetReadBuffer: %s", describeErr(c.SetReadBuffer(1<<16)))
	_, err = c.File()
	tr.add("File: %s", describeErr(err))
	rc, err := c.SyscallConn()
	tr.add("SyscallConn: %s", describeErr(err))
	if err == nil {
		tr.add("Control: %s", describeErr(rc.Control(func(uintptr) {})))
	}
}

// TestUDPMetadataClosed has metadata calls on closed connections, with the
// records of what was read before still to be had or not, but no panic and no
// metadata of nothing.
func TestUDPMetadataClosed(t *testing.T) {
	testutil.RequireRoot(t)
	p := testutil.Pair(t)
	testutil.EnterCgroup(t)
	for _, k := range udpKinds(p) {
		t.Run(k.name, func(t *testing.T) {
			c := k.serve(t, p, openMeta).(*sockmeta.UDPConn)
			must(t, c.Close())
			md := stale(t)
			n, addr, err := c.ReadMetadata(make([]byte, 64), &md)
			if n != 0 || addr != (netip.AddrPort{}) || !errors.Is(err, net.ErrClosed) || sockmeta.IsMetadataError(err) {
				t.Errorf("ReadMetadata: %d, %v, %v", n, addr, err)
			}
			if md != (sockmeta.Metadata{}) {
				t.Errorf("metadata %v", md)
			}
			if md, err := c.Metadata(); err == nil || md != (sockmeta.Metadata{}) {
				t.Errorf("Metadata: %v, %v", md, err)
			}
		})
	}
}

// TestUDPRefused reads the error that a closed port answers with.
func TestUDPRefused(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	ns := testutil.Namespace(t)
	testutil.EnterCgroup(t)
	for _, addr := range []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()} {
		t.Run(addr.String(), func(t *testing.T) {
			run := func(open openUDP) (tr transcript) {
				var c udpConn
				must(t, ns.Do(func() (err error) {
					c, err = open("udp", udpAddr(addr, serverPort), udpAddr(addr, clientPort))
					return err
				}))
				defer c.Close()
				must(t, c.SetDeadline(time.Now().Add(udpPatience)))
				for _, r := range udpReads {
					for _, room := range []int{64, 0} {
						if r.name == "Read" && room == 0 {
							continue // does not look at the socket
						}
						_, err := c.Write([]byte("payload"))
						must(t, err)
						n, rest, err := r.read(c, make([]byte, room))
						tr.add("%s with room for %d: %d, %s, %s", r.name, room, n, rest, describeErr(err))
						if !errors.Is(err, syscall.ECONNREFUSED) {
							t.Fatalf("%s: %v", r.name, err)
						}
					}
				}
				_, err := c.Write([]byte("payload"))
				must(t, err)
				_, err = c.Write([]byte("payload"))
				tr.add("Write: %s", describeErr(err))
				return tr
			}
			plain := run(openPlain)
			run(openMeta).compare(t, plain)
			run(openWrapped).compare(t, plain)
		})
	}
}

// TestOpenErrors has the functions that make sockets fail as those of package
// net do. It needs no privileges.
func TestOpenErrors(t *testing.T) {
	testutil.ShieldCgroup(t)
	taken, err := net.ListenUDP("udp4", udpAddr(netip.MustParseAddr("127.0.0.1"), 0))
	must(t, err)
	defer taken.Close()
	takenTCP, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	defer takenTCP.Close()
	udpPort, tcpPort := taken.LocalAddr().(*net.UDPAddr).Port, takenTCP.Addr().(*net.TCPAddr).Port

	type address struct {
		ip   net.IP
		zone string
		port int // 0: one that is taken, or closed where it is dialed
		free bool
	}
	v4, v6 := net.IPv4(127, 0, 0, 1), net.IPv6loopback
	elsewhere := net.IPv4(192, 0, 2, 99)
	addrs := map[string]*address{
		"nil":            nil,
		"taken":          {ip: v4},
		"taken, 4 bytes": {ip: v4.To4()},
		"IPv4":           {ip: v4, free: true},
		"IPv6":           {ip: v6, free: true},
		"wildcard":       {free: true},
		"IPv4 wildcard":  {ip: net.IPv4zero, free: true},
		"IPv6 wildcard":  {ip: net.IPv6unspecified, free: true},
		"not ours":       {ip: elsewhere, free: true},
		"unknown zone":   {ip: net.ParseIP("fe80::1"), zone: "no-such-if", free: true},
		"3 bytes":        {ip: net.IP{1, 2, 3}, free: true},
		"high port":      {ip: v4, port: 65536},
		"negative port":  {ip: v4, port: -1},
	}
	udp := func(a *address) *net.UDPAddr {
		if a == nil {
			return nil
		}
		u := &net.UDPAddr{IP: a.ip, Port: a.port, Zone: a.zone}
		if a.port == 0 && !a.free {
			u.Port = udpPort
		}
		return u
	}
	tcp := func(a *address) *net.TCPAddr {
		if a == nil {
			return nil
		}
		u := &net.TCPAddr{IP: a.ip, Port: a.port, Zone: a.zone}
		if a.port == 0 && !a.free {
			u.Port = tcpPort
		}
		return u
	}
	for _, network := range []string{"", "4", "6", "7", "packet"} {
		for local, laddr := range addrs {
			t.Run(fmt.Sprintf("listen %q %s", network, local), func(t *testing.T) {
				p, perr := net.ListenUDP("udp"+network, udp(laddr))
				c, err := sockmeta.ListenUDP("udp"+network, udp(laddr))
				compareOpened(t, opened(c, err), opened(p, perr))
				pl, perr := net.ListenTCP("tcp"+network, tcp(laddr))
				l, err := sockmeta.ListenTCP("tcp"+network, tcp(laddr))
				compareOpened(t, opened(addrConn{l}, err), opened(addrConn{pl}, perr))
			})
			for remote, raddr := range addrs {
				t.Run(fmt.Sprintf("dial %q %s to %s", network, local, remote), func(t *testing.T) {
					p, perr := net.DialUDP("udp"+network, udp(laddr), udp(raddr))
					c, err := sockmeta.DialUDP("udp"+network, udp(laddr), udp(raddr))
					compareOpened(t, opened(c, err), opened(p, perr))
					if remote == "not ours" {
						return // waits for an answer
					}
					pt, perr := net.DialTCP("tcp"+network, tcp(laddr), tcp(raddr))
					tc, err := sockmeta.DialTCP("tcp"+network, tcp(laddr), tcp(raddr))
					compareOpened(t, opened(tc, err), opened(pt, perr))
				})
			}
		}
	}
	_, err = sockmeta.ListenUDP("tcp", nil)
	_, perr := net.ListenUDP("tcp", nil)
	compareOpened(t, describeErr(err), describeErr(perr))
	_, err = sockmeta.ListenPacket("tcp", "127.0.0.1:0")
	_, perr = net.ListenPacket("tcp", "127.0.0.1:0")
	compareOpened(t, describeErr(err), describeErr(perr))
	_, err = sockmeta.Listen("udp", "127.0.0.1:0")
	_, perr = net.Listen("udp", "127.0.0.1:0")
	compareOpened(t, describeErr(err), describeErr(perr))
	_, err = sockmeta.Dial("udp", "127.0.0.1")
	_, perr = net.Dial("udp", "127.0.0.1")
	compareOpened(t, describeErr(err), describeErr(perr))
	_, err = sockmeta.Dial("tcp", fmt.Sprint("127.0.0.1:", udpPort+1<<16))
	_, perr = net.Dial("tcp", fmt.Sprint("127.0.0.1:", udpPort+1<<16))
	compareOpened(t, describeErr(err), describeErr(perr))
}

// addrConn makes a listener look like a connection without a remote address.
type addrConn struct{ net.Listener }

func (c addrConn) LocalAddr() net.Addr  { return c.Addr() }
func (c addrConn) RemoteAddr() net.Addr { return nil }

// opened says what came of opening a socket, ports that the kernel chose left
// out, and closes it.
func opened(c interface {
	io.Closer
	LocalAddr() net.Addr
	RemoteAddr() net.Addr
}, err error) string {
	if err != nil {
		return describeErr(err)
	}
	defer c.Close()
	return fmt.Sprintf("%s to %s", describeHost(c.LocalAddr()), describeHost(c.RemoteAddr()))
}

func describeHost(a net.Addr) string {
	switch a := a.(type) {
	case *net.UDPAddr:
		return fmt.Sprintf("%T %v%%%s, IP of %d bytes", a, a.IP, a.Zone, len(a.IP))
	case *net.TCPAddr:
		return fmt.Sprintf("%T %v%%%s, IP of %d bytes", a, a.IP, a.Zone, len(a.IP))
	}
	return fmt.Sprint(a)
}

func compareOpened(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("\n    %s\nnet %s", got, want)
	}
}

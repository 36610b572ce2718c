// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

const (
	tcpPort    = 7001
	tcpService = 41
)

// A tcpLab is a pair of hosts with the producer on both, and a cgroup of its
// own.
type tcpLab struct {
	*netlab.Pair
	t *testing.T
}

func newTCPLab(t *testing.T) *tcpLab {
	t.Helper()
	lab := &tcpLab{testutil.Pair(t), t}
	testutil.EnterCgroup(t)
	for _, host := range []struct {
		ns    *netlab.Namespace
		iface string
	}{{lab.Server, lab.ServerIf}, {lab.Client, lab.ClientIf}} {
		must(t, host.ns.Do(func() error {
			p, err := bpf.AttachProducer(host.iface, bpf.ProducerOptions{Services: map[uint16]uint32{tcpPort: tcpService}})
			if err != nil {
				return err
			}
			t.Cleanup(func() { _ = p.Close() })
			return nil
		}))
	}
	return lab
}

func (l *tcpLab) sysctl(ns *netlab.Namespace, name, value string) {
	l.t.Helper()
	must(l.t, ns.Do(func() error {
		return os.WriteFile("/proc/sys/"+strings.ReplaceAll(name, ".", "/"), []byte(value), 0)
	}))
}

func (l *tcpLab) listen(lc sockmeta.ListenConfig) *sockmeta.TCPListener {
	l.t.Helper()
	var ln net.Listener
	must(l.t, l.Server.Do(func() (err error) {
		lc.Require = true
		ln, err = lc.Listen(l.t.Context(), "tcp", ":"+strconv.Itoa(tcpPort))
		return err
	}))
	l.t.Cleanup(func() { _ = ln.Close() })
	return ln.(*sockmeta.TCPListener)
}

// dial connects a plain client.
func (l *tcpLab) dial(addr netip.Addr) *net.TCPConn {
	l.t.Helper()
	var c net.Conn
	must(l.t, l.Client.Do(func() (err error) {
		d := net.Dialer{Timeout: 10 * time.Second}
		c, err = d.Dial("tcp", netip.AddrPortFrom(addr, tcpPort).String())
		return err
	}))
	l.t.Cleanup(func() { _ = c.Close() })
	return c.(*net.TCPConn)
}

func (l *tcpLab) accept(ln *sockmeta.TCPListener) *sockmeta.TCPConn {
	l.t.Helper()
	must(l.t, ln.SetDeadline(time.Now().Add(20*time.Second)))
	c, err := ln.AcceptTCP()
	must(l.t, err)
	must(l.t, c.SetDeadline(time.Now().Add(20*time.Second)))
	l.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (l *tcpLab) addrs() map[string]netip.Addr {
	return map[string]netip.Addr{"ipv4": l.ServerAddr4, "ipv6": l.ServerAddr6}
}

// packetID returns the id, and checks the service on the way.
func packetID(t *testing.T, md sockmeta.Metadata, err error) uint64 {
	t.Helper()
	must(t, err)
	id, ok := md.Uint64(sockmeta.KeyPacketID)
	if !ok {
		t.Fatalf("no packet id in %v", md)
	}
	if s, _ := md.Uint32(sockmeta.KeyServiceID); s != tcpService {
		t.Errorf("service is %d, want %d", s, tcpService)
	}
	return id
}

func read(t *testing.T, c io.Reader, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != want {
		t.Fatalf("read %q, %v, want %q", b, err, want)
	}
}

func wantError(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error is %v, want %v", err, want)
	}
	var op *net.OpError
	if err != nil && !errors.As(err, &op) {
		t.Errorf("%v is a %T, want a *net.OpError", err, err)
	}
}

// TestTCPAccepted follows a connection through its life.
func TestTCPAccepted(t *testing.T) {
	lab := newTCPLab(t)
	ln := lab.listen(sockmeta.ListenConfig{})
	for name, addr := range lab.addrs() {
		t.Run(name, func(t *testing.T) {
			client := lab.dial(addr)
			c := lab.accept(ln)

			md, err := c.OpeningMetadata()
			opening := packetID(t, md, err)
			if md.Flags() != 0 {
				t.Errorf("the SYN's record has flags %v", md.Flags())
			}
			_, err = c.Metadata()
			wantError(t, err, sockmeta.ErrNoMetadata)

			var last uint64
			for i := range 5 {
				msg := strings.Repeat(strconv.Itoa(i), 100+i)
				must1(t)(client.Write([]byte(msg)))
				// The segment in two reads has one record.
				read(t, c, msg[:50])
				md, err := c.Metadata()
				half := packetID(t, md, err)
				read(t, c, msg[50:])
				md, err = c.Metadata()
				id := packetID(t, md, err)
				if half != id {
					t.Errorf("message %d: packet %#x for its first half, %#x for its second", i, half, id)
				}
				md, err = c.LatestMetadata()
				if latest := packetID(t, md, err); latest != id {
					t.Errorf("message %d: newest packet is %#x, read %#x", i, latest, id)
				}
				if id == last || id == opening {
					t.Errorf("message %d: packet %#x again", i, id)
				}
				last = id
			}

			must(t, client.CloseWrite())
			if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Fatalf("read %d, %v, want EOF", n, err)
			}
			md, err = c.Metadata()
			if id := packetID(t, md, err); id != last {
				t.Errorf("after EOF packet %#x, want that of the last bytes, %#x", id, last)
			}
			md, err = c.LatestMetadata()
			if id := packetID(t, md, err); id == last {
				t.Error("the FIN is not the newest segment")
			}
			md, err = c.OpeningMetadata()
			if id := packetID(t, md, err); id != opening {
				t.Errorf("opening packet is %#x now, was %#x", id, opening)
			}

			must(t, c.Close())
			_, err = c.Metadata()
			wantError(t, err, net.ErrClosed)
		})
	}
}

// must1 is must for functions that return a count as well.
func must1(t testing.TB) func(int, error) {
	return func(_ int, err error) {
		t.Helper()
		must(t, err)
	}
}

// TestTCPDialed has metadata on the side that dials.
func TestTCPDialed(t *testing.T) {
	lab := newTCPLab(t)
	// From here on the client's port is the well-known one.
	for name, addr := range map[string]netip.Addr{"ipv4": lab.ClientAddr4, "ipv6": lab.ClientAddr6} {
		t.Run(name, func(t *testing.T) {
			var plain net.Listener
			must(t, lab.Client.Do(func() (err error) {
				plain, err = net.ListenTCP("tcp", &net.TCPAddr{IP: addr.AsSlice()})
				return err
			}))
			defer plain.Close()
			var c *sockmeta.TCPConn
			must(t, lab.Server.Do(func() (err error) {
				c, err = sockmeta.DialTCP("tcp", nil, plain.Addr().(*net.TCPAddr))
				return err
			}))
			defer c.Close()
			must(t, c.SetDeadline(time.Now().Add(10*time.Second)))
			peer, err := plain.Accept()
			must(t, err)
			defer peer.Close()

			md, err := c.OpeningMetadata()
			must(t, err)
			if md.Flags() != cmsg.FlagSynAck {
				t.Errorf("flags are %v, want %v", md.Flags(), cmsg.FlagSynAck)
			}
			opening, _ := md.Uint64(sockmeta.KeyPacketID)
			must1(t)(peer.Write([]byte("hello")))
			read(t, c, "hello")
			md, err = c.Metadata()
			must(t, err)
			if id, ok := md.Uint64(sockmeta.KeyPacketID); !ok || id == opening {
				t.Errorf("packet is %#x, opening packet %#x", id, opening)
			}
		})
	}
}

// TestTCPFastOpen has the first bytes arrive with the SYN.
func TestTCPFastOpen(t *testing.T) {
	lab := newTCPLab(t)
	// Both sides, and no cookie needed (ip-sysctl, tcp_fastopen).
	lab.sysctl(lab.Server, "net.ipv4.tcp_fastopen", "519")
	lab.sysctl(lab.Client, "net.ipv4.tcp_fastopen", "5")
	ln := lab.listen(sockmeta.ListenConfig{ListenConfig: net.ListenConfig{Control: setsockopt(unix.IPPROTO_TCP, unix.TCP_FASTOPEN, 16)}})
	var client net.Conn
	must(t, lab.Client.Do(func() (err error) {
		d := net.Dialer{Control: setsockopt(unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1)}
		if client, err = d.Dial("tcp4", netip.AddrPortFrom(lab.ServerAddr4, tcpPort).String()); err != nil {
			return err
		}
		_, err = client.Write([]byte("in the SYN"))
		return err
	}))
	defer client.Close()
	c := lab.accept(ln)
	read(t, c, "in the SYN")
	md, err := c.OpeningMetadata()
	opening := packetID(t, md, err)
	md, err = c.Metadata()
	if id := packetID(t, md, err); id != opening {
		t.Errorf("the bytes came in packet %#x, the SYN was %#x: no Fast Open?", id, opening)
	}
	must1(t)(client.Write([]byte("later")))
	read(t, c, "later")
	md, err = c.Metadata()
	if id := packetID(t, md, err); id == opening {
		t.Error("later bytes have the SYN's record")
	}
}

func setsockopt(level, opt, value int) func(string, string, syscall.RawConn) error {
	return func(_, _ string, rc syscall.RawConn) error {
		var err error
		if cerr := rc.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, opt, value) }); cerr != nil {
			return cerr
		}
		return os.NewSyscallError("setsockopt", err)
	}
}

// TestTCPHandshakeAck loses the record of the SYN, as a full table does, and has
// the segment that completes the handshake bring the first bytes.
func TestTCPHandshakeAck(t *testing.T) {
	lab := newTCPLab(t)
	ln := lab.listen(sockmeta.ListenConfig{ListenConfig: net.ListenConfig{Control: setsockopt(unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 5)}})
	for name, addr := range lab.addrs() {
		t.Run(name, func(t *testing.T) {
			client := lab.dial(addr)
			// The bare ACK was ignored: the connection waits for data.
			forgetHandshakes(t)
			must1(t)(client.Write([]byte("first")))
			c := lab.accept(ln)
			md, err := c.OpeningMetadata()
			opening := packetID(t, md, err)
			if md.Flags() != cmsg.FlagHandshakeAck {
				t.Errorf("flags are %v, want %v", md.Flags(), cmsg.FlagHandshakeAck)
			}
			read(t, c, "first")
			md, err = c.Metadata()
			if id := packetID(t, md, err); id != opening {
				t.Errorf("first bytes came in packet %#x, the handshake ended with %#x", id, opening)
			}
			if md.Flags() != 0 {
				t.Errorf("flags of the bytes are %v", md.Flags())
			}
		})
	}
}

// TestTCPDeferAccept has SYN and first bytes in two segments, before there is a
// socket.
func TestTCPDeferAccept(t *testing.T) {
	lab := newTCPLab(t)
	ln := lab.listen(sockmeta.ListenConfig{ListenConfig: net.ListenConfig{Control: setsockopt(unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 5)}})
	client := lab.dial(lab.ServerAddr6)
	must1(t)(client.Write([]byte("first")))
	c := lab.accept(ln)
	md, err := c.OpeningMetadata()
	opening := packetID(t, md, err)
	if md.Flags() != 0 {
		t.Errorf("flags are %v, want those of a SYN", md.Flags())
	}
	read(t, c, "first")
	md, err = c.Metadata()
	if id := packetID(t, md, err); id == opening {
		t.Error("the first bytes have the SYN's record")
	}
}

// forgetHandshakes empties the table of handshakes under way of the programs
// that are attached to this process's cgroup.
func forgetHandshakes(t *testing.T) {
	t.Helper()
	a, err := bpf.AttachOwn()
	must(t, err)
	dir, err := os.Open(a.Cgroup())
	must(t, err)
	defer dir.Close()
	attached, err := link.QueryPrograms(link.QueryOptions{Target: int(dir.Fd()), Attach: ebpf.AttachCGroupSockOps})
	must(t, err)
	removed := 0
	for _, p := range attached.Programs {
		prog, err := ebpf.NewProgramFromID(p.ID)
		must(t, err)
		defer prog.Close()
		info, err := prog.Info()
		must(t, err)
		ids, _ := info.MapIDs()
		for _, id := range ids {
			m, err := ebpf.NewMapFromID(id)
			must(t, err)
			defer m.Close()
			if m.Type() != ebpf.LRUHash {
				continue
			}
			key := make([]byte, m.KeySize())
			for m.NextKey(nil, key) == nil {
				must(t, m.Delete(key))
				removed++
			}
		}
	}
	if removed == 0 {
		t.Fatal("no handshakes were under way")
	}
}

// TestTCPSynCookies has the kernel answer every SYN with a cookie.
func TestTCPSynCookies(t *testing.T) {
	lab := newTCPLab(t)
	lab.sysctl(lab.Server, "net.ipv4.tcp_syncookies", "2")
	ln := lab.listen(sockmeta.ListenConfig{})
	for name, addr := range lab.addrs() {
		t.Run(name, func(t *testing.T) {
			client := lab.dial(addr)
			c := lab.accept(ln)
			md, err := c.OpeningMetadata()
			packetID(t, md, err)
			must1(t)(client.Write([]byte("hello")))
			read(t, c, "hello")
			md, err = c.Metadata()
			packetID(t, md, err)
		})
	}
}

// listenPlainTCP returns a listener that has not opted in.
func listenPlainTCP(t *testing.T, ns *netlab.Namespace) (ln *net.TCPListener) {
	t.Helper()
	must(t, ns.Do(func() (err error) {
		ln, err = net.ListenTCP("tcp", &net.TCPAddr{Port: tcpPort})
		return err
	}))
	return ln
}

// TestTCPWrapped opts in a connection that is open already.
func TestTCPWrapped(t *testing.T) {
	lab := newTCPLab(t)
	plain := listenPlainTCP(t, lab.Server)
	defer plain.Close()
	client := lab.dial(lab.ServerAddr4)
	inner, err := plain.AcceptTCP()
	must(t, err)
	must1(t)(client.Write([]byte("before")))
	read(t, inner, "before")

	c := sockmeta.WrapTCP(inner)
	defer c.Close()
	must(t, c.Support().Err())
	_, err = c.OpeningMetadata()
	wantError(t, err, sockmeta.ErrNoMetadata)
	_, err = c.Metadata()
	wantError(t, err, sockmeta.ErrNoMetadata)
	must1(t)(client.Write([]byte("after")))
	read(t, c, "after")
	md, err := c.Metadata()
	id := packetID(t, md, err)

	// Again changes nothing.
	c = sockmeta.WrapTCP(inner)
	md, err = c.Metadata()
	if again := packetID(t, md, err); again != id {
		t.Errorf("packet is %#x after wrapping twice, was %#x", again, id)
	}
}

// TestTCPAfterDetach goes on without the programs.
func TestTCPAfterDetach(t *testing.T) {
	lab := newTCPLab(t)
	a, err := bpf.Attach(bpf.Options{})
	must(t, err)
	ln := lab.listen(sockmeta.ListenConfig{})
	client := lab.dial(lab.ServerAddr4)
	c := lab.accept(ln)
	must1(t)(client.Write([]byte("with")))
	read(t, c, "with")
	md, err := c.Metadata()
	packetID(t, md, err)

	must(t, a.Close())
	must1(t)(client.Write([]byte("without")))
	read(t, c, "without")
	_, err = c.Metadata()
	wantError(t, err, sockmeta.ErrNotSupported)
	for _, s := range []sockmeta.Support{c.Support(), ln.Support()} {
		if s.Tier != sockmeta.TierNone {
			t.Errorf("support is %v", s)
		}
	}
}

// TestTCPMetadataDoesNotBlock calls it while a Read waits, and past a deadline.
func TestTCPMetadataDoesNotBlock(t *testing.T) {
	lab := newTCPLab(t)
	ln := lab.listen(sockmeta.ListenConfig{})
	client := lab.dial(lab.ServerAddr4)
	c := lab.accept(ln)
	must1(t)(client.Write([]byte("one")))
	read(t, c, "one")
	done := make(chan error, 1)
	go func() {
		_, err := io.ReadFull(c, make([]byte, 3))
		done <- err
	}()
	for range 100 {
		md, err := c.Metadata()
		packetID(t, md, err)
	}
	must1(t)(client.Write([]byte("two")))
	must(t, <-done)

	must(t, c.SetDeadline(time.Now().Add(-time.Second)))
	md, err := c.Metadata()
	packetID(t, md, err)
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read past the deadline: %v", err)
	}
}

// TestTCPSplice copies between connections and counts this process's reads
// (/proc/PID/io, syscr: read calls, splice not among them).
func TestTCPSplice(t *testing.T) {
	lab := newTCPLab(t)
	ln := lab.listen(sockmeta.ListenConfig{})
	const size = 8 << 20
	payload := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	for _, tt := range []struct {
		name string
		copy func(dst, src *sockmeta.TCPConn) (int64, error)
	}{
		{"Copy", func(dst, src *sockmeta.TCPConn) (int64, error) { return io.Copy(dst, src) }},
		{"CopyN", func(dst, src *sockmeta.TCPConn) (int64, error) { return io.CopyN(dst, src, size) }},
		{"ReadFrom", func(dst, src *sockmeta.TCPConn) (int64, error) { return dst.ReadFrom(src) }},
		{"WriteTo", func(dst, src *sockmeta.TCPConn) (int64, error) { return src.WriteTo(dst) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			from := lab.dial(lab.ServerAddr4)
			src := lab.accept(ln)
			to := lab.dial(lab.ServerAddr4)
			dst := lab.accept(ln)

			go func() {
				_, _ = from.Write(payload)
				_ = from.CloseWrite()
			}()
			type result struct {
				n   int64
				err error
			}
			copied := make(chan result)
			receiver := &countingReader{r: to}
			before := readCalls(t)
			go func() {
				n, err := tt.copy(dst, src)
				_ = dst.CloseWrite()
				copied <- result{n, err}
			}()
			got, err := io.ReadAll(receiver)
			must(t, err)
			r := <-copied
			if r.err != nil || r.n != size || !bytes.Equal(got, payload) {
				t.Fatalf("copied %d bytes, %v, of which %d arrived", r.n, r.err, len(got))
			}
			// What the receiver reads is known; without splice as many
			// again would be read, 32 KiB at a time.
			calls := readCalls(t) - before - receiver.calls
			if calls > size/(32<<10)/2 {
				t.Errorf("%d reads for %d bytes: not spliced", calls, size)
			}
			md, err := src.Metadata()
			// Where the kernel dropped segments and got them again, the
			// last to arrive were not the last of the stream.
			if !errors.Is(err, sockmeta.ErrOverrun) {
				packetID(t, md, err)
			}
		})
	}
}

type countingReader struct {
	r     io.Reader
	calls int
}

func (c *countingReader) Read(b []byte) (int, error) {
	// One that finds nothing is tried again below net.Conn.
	c.calls += 2
	return c.r.Read(b)
}

func readCalls(t *testing.T) int {
	t.Helper()
	f, err := os.Open("/proc/self/io")
	must(t, err)
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if n, ok := strings.CutPrefix(s.Text(), "syscr: "); ok {
			calls, err := strconv.Atoi(n)
			must(t, err)
			return calls
		}
	}
	t.Fatal("no syscr")
	return 0
}

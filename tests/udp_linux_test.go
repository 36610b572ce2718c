// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testprog"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// Both hosts use the same ports in every test, each in namespaces of its own,
// so that what two runs say can be compared as it is.
const (
	serverPort = 5000
	clientPort = 6000

	// udpPatience is when a datagram counts as lost.
	udpPatience = time.Minute
)

// udpConn is what net.UDPConn and the wrapper have in common.
type udpConn interface {
	net.Conn
	net.PacketConn
	syscall.Conn
	ReadFromUDP(b []byte) (int, *net.UDPAddr, error)
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	ReadMsgUDP(b, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error)
	ReadMsgUDPAddrPort(b, oob []byte) (n, oobn, flags int, addr netip.AddrPort, err error)
	WriteToUDP(b []byte, addr *net.UDPAddr) (int, error)
	WriteToUDPAddrPort(b []byte, addr netip.AddrPort) (int, error)
	WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error)
	WriteMsgUDPAddrPort(b, oob []byte, addr netip.AddrPort) (n, oobn int, err error)
	SetReadBuffer(bytes int) error
	SetWriteBuffer(bytes int) error
	File() (*os.File, error)
}

var (
	_ udpConn = (*net.UDPConn)(nil)
	_ udpConn = (*sockmeta.UDPConn)(nil)
)

// udpReads are all methods that read a datagram. rest is what the call returned
// besides, as text.
var udpReads = []struct {
	name string
	read func(c udpConn, b []byte) (n int, rest string, err error)
}{
	{"Read", func(c udpConn, b []byte) (int, string, error) {
		n, err := c.Read(b)
		return n, "", err
	}},
	{"ReadFrom", func(c udpConn, b []byte) (int, string, error) {
		n, addr, err := c.ReadFrom(b)
		return n, describeAddr(addr), err
	}},
	{"ReadFromUDP", func(c udpConn, b []byte) (int, string, error) {
		n, addr, err := c.ReadFromUDP(b)
		return n, describeUDPAddr(addr), err
	}},
	{"ReadFromUDPAddrPort", func(c udpConn, b []byte) (int, string, error) {
		n, addr, err := c.ReadFromUDPAddrPort(b)
		return n, describeAddrPort(addr), err
	}},
	{"ReadMsgUDP", func(c udpConn, b []byte) (int, string, error) {
		n, oobn, flags, addr, err := c.ReadMsgUDP(b, make([]byte, 64))
		return n, fmt.Sprintf("oobn %d, flags %#x, %s", oobn, flags, describeUDPAddr(addr)), err
	}},
	{"ReadMsgUDP without oob", func(c udpConn, b []byte) (int, string, error) {
		n, oobn, flags, addr, err := c.ReadMsgUDP(b, nil)
		return n, fmt.Sprintf("oobn %d, flags %#x, %s", oobn, flags, describeUDPAddr(addr)), err
	}},
	{"ReadMsgUDPAddrPort", func(c udpConn, b []byte) (int, string, error) {
		n, oobn, flags, addr, err := c.ReadMsgUDPAddrPort(b, make([]byte, 64))
		return n, fmt.Sprintf("oobn %d, flags %#x, %s", oobn, flags, describeAddrPort(addr)), err
	}},
}

func describeAddr(a net.Addr) string {
	if a == nil {
		return "nil"
	}
	if u, ok := a.(*net.UDPAddr); ok {
		return describeUDPAddr(u)
	}
	return fmt.Sprintf("%T %v", a, a)
}

func describeUDPAddr(a *net.UDPAddr) string {
	if a == nil {
		return "nil *net.UDPAddr"
	}
	return fmt.Sprintf("%T %v, IP of %d bytes", a, a, len(a.IP))
}

func describeAddrPort(a netip.AddrPort) string {
	return fmt.Sprintf("%v, IPv4-mapped: %v", a, a.Addr().Is4In6())
}

// describeErr says what a program could find out about an error.
func describeErr(err error) string {
	var b strings.Builder
	for e := err; e != nil; e = errors.Unwrap(e) {
		fmt.Fprintf(&b, "%T(%v)", e, e)
		if op, ok := e.(*net.OpError); ok {
			fmt.Fprintf(&b, " of %q on %q from %s to %s", op.Op, op.Net, describeAddr(op.Source), describeAddr(op.Addr))
		}
		b.WriteString(" > ")
	}
	timeout, ok := err.(interface{ Timeout() bool })
	fmt.Fprintf(&b, "timeout: %v, deadline: %v, closed: %v", ok && timeout.Timeout(),
		errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, net.ErrClosed))
	return b.String()
}

// openUDP makes a socket, connected where raddr is not nil.
type openUDP func(network string, laddr, raddr *net.UDPAddr) (udpConn, error)

func openPlain(network string, laddr, raddr *net.UDPAddr) (udpConn, error) {
	if raddr == nil {
		return net.ListenUDP(network, laddr)
	}
	return net.DialUDP(network, laddr, raddr)
}

func openMeta(network string, laddr, raddr *net.UDPAddr) (udpConn, error) {
	if raddr == nil {
		return sockmeta.ListenUDP(network, laddr)
	}
	return sockmeta.DialUDP(network, laddr, raddr)
}

// openWrapped opts in a socket that net has made.
func openWrapped(network string, laddr, raddr *net.UDPAddr) (udpConn, error) {
	c, err := openPlain(network, laddr, raddr)
	if err != nil {
		return nil, err
	}
	return sockmeta.WrapUDP(c.(*net.UDPConn)), nil
}

// udpKind is a kind of server socket.
type udpKind struct {
	name    string
	network string
	// listen is the address that it is bound to, and server the one that it
	// is reached by, from client.
	listen, server, client netip.Addr
	connected              bool
}

func udpKinds(p *netlab.Pair) []udpKind {
	var kinds []udpKind
	for _, connected := range []bool{false, true} {
		suffix := ""
		if connected {
			suffix = " connected"
		}
		kinds = append(kinds,
			udpKind{"udp4" + suffix, "udp4", p.ServerAddr4, p.ServerAddr4, p.ClientAddr4, connected},
			udpKind{"udp6" + suffix, "udp6", p.ServerAddr6, p.ServerAddr6, p.ClientAddr6, connected},
			udpKind{"udp by IPv4" + suffix, "udp", netip.IPv6Unspecified(), p.ServerAddr4, p.ClientAddr4, connected},
			udpKind{"udp by IPv6" + suffix, "udp", netip.IPv6Unspecified(), p.ServerAddr6, p.ClientAddr6, connected},
		)
	}
	return kinds
}

// openOn makes the server's socket.
func (k *udpKind) openOn(p *netlab.Pair, open openUDP) (c udpConn, err error) {
	var raddr *net.UDPAddr
	if k.connected {
		raddr = udpAddr(k.client, clientPort)
	}
	laddr := &net.UDPAddr{Port: serverPort}
	if !k.listen.IsUnspecified() {
		laddr.IP = k.listen.AsSlice()
	}
	err = p.Server.Do(func() error {
		c, err = open(k.network, laddr, raddr)
		return err
	})
	return c, err
}

// server makes the server's socket, which lasts as long as the test. Its reads
// give up.
func (k *udpKind) serve(t testing.TB, p *netlab.Pair, open openUDP) udpConn {
	t.Helper()
	c, err := k.openOn(p, open)
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	must(t, c.SetReadDeadline(time.Now().Add(udpPatience)))
	return c
}

// dial makes the client's socket, which lasts as long as the test.
func (k *udpKind) dial(t testing.TB, p *netlab.Pair) *net.UDPConn {
	t.Helper()
	return dialUDP(t, p.Client, udpAddr(k.client, clientPort), udpAddr(k.server, serverPort))
}

func dialUDP(t testing.TB, ns *netlab.Namespace, laddr, raddr *net.UDPAddr) (c *net.UDPConn) {
	t.Helper()
	must(t, ns.Do(func() (err error) {
		c, err = net.DialUDP("udp", laddr, raddr)
		return err
	}))
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func listenUDP(t testing.TB, ns *netlab.Namespace, network string, laddr *net.UDPAddr) (c *sockmeta.UDPConn) {
	t.Helper()
	must(t, ns.Do(func() (err error) {
		c, err = sockmeta.ListenUDP(network, laddr)
		return err
	}))
	t.Cleanup(func() { _ = c.Close() })
	must(t, c.SetReadDeadline(time.Now().Add(udpPatience)))
	return c
}

func udpAddr(a netip.Addr, port int) *net.UDPAddr {
	return &net.UDPAddr{IP: a.AsSlice(), Port: port}
}

func send(t testing.TB, c *net.UDPConn, payload string) {
	t.Helper()
	if _, err := c.Write([]byte(payload)); err != nil {
		t.Fatal(err)
	}
}

// withFD calls f with the descriptor of c.
func withFD(t testing.TB, c syscall.Conn, f func(fd int) error) {
	t.Helper()
	must(t, onSocket(c, f))
}

// attachProducer attaches the module's own producer to the server's interface.
func attachProducer(t testing.TB, p *netlab.Pair, opts bpf.ProducerOptions) (prod *bpf.Producer) {
	t.Helper()
	must(t, p.Server.Do(func() (err error) {
		prod, err = bpf.AttachProducer(p.ServerIf, opts)
		if err == nil {
			t.Cleanup(func() { _ = prod.Close() })
		}
		return err
	}))
	return prod
}

// attachEchoUDP attaches the producer that repeats a datagram's first 8 bytes.
func attachEchoUDP(t *testing.T, p *netlab.Pair) {
	t.Helper()
	var objs testprog.EchoObjects
	spec, err := testprog.Prepared(testprog.LoadEcho())
	must(t, err)
	must(t, spec.LoadAndAssign(&objs, nil))
	defer objs.Close()
	attachXDP(t, p.Server, p.ServerIf, objs.EchoUdp)
}

// numbered returns a payload for attachEchoUDP's producer.
func numbered(id uint64) string {
	return string(binary.NativeEndian.AppendUint64(nil, id)) + "payload"
}

func wantNumbered(t testing.TB, payload []byte, md *cmsg.Metadata) {
	t.Helper()
	if len(payload) < 8 {
		t.Fatalf("payload is %q", payload)
	}
	id := binary.NativeEndian.Uint64(payload)
	if got, ok := md.Uint64(testprog.KeyID); !ok || got != id {
		t.Errorf("metadata is of %d, %v, payload of %d", got, ok, id)
	}
}

func monotonic(t testing.TB) uint64 {
	t.Helper()
	var ts unix.Timespec
	must(t, unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts))
	return uint64(ts.Nano())
}

// TestUDPMetadata asks for the metadata after each way of reading.
func TestUDPMetadata(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	const service = 77
	for _, tt := range []struct {
		name string
		open openUDP
	}{
		{"made", openMeta},
		{"wrapped", openWrapped},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := testutil.Pair(t)
			testutil.EnterCgroup(t)
			prod := attachProducer(t, p, bpf.ProducerOptions{Services: map[uint16]uint32{serverPort: service}})
			index, err := netlab.Index(p.Server, p.ServerIf)
			must(t, err)
			last := map[uint64]uint64{} // packet count by CPU
			for _, k := range udpKinds(p) {
				t.Run(k.name, func(t *testing.T) {
					testUDPMetadata(t, k.serve(t, p, tt.open).(*sockmeta.UDPConn), k.dial(t, p), index, service, prod.Timed(), last)
				})
			}
		})
	}
}

func testUDPMetadata(t *testing.T, c *sockmeta.UDPConn, client *net.UDPConn, index int, service uint32, timed bool, last map[uint64]uint64) {
	if _, err := c.Metadata(); !errors.Is(err, sockmeta.ErrNoMetadata) {
		t.Errorf("before the first datagram: %v", err)
	}
	reads := slices.Clone(udpReads)
	var read sockmeta.Metadata
	reads = append(reads, struct {
		name string
		read func(c udpConn, b []byte) (n int, rest string, err error)
	}{"ReadMetadata", func(_ udpConn, b []byte) (int, string, error) {
		n, _, err := c.ReadMetadata(b, &read)
		return n, "", err
	}})
	for _, r := range reads {
		start := monotonic(t)
		send(t, client, "payload")
		b := make([]byte, 64)
		n, _, err := r.read(c, b)
		must(t, err)
		if got := string(b[:n]); got != "payload" {
			t.Fatalf("%s: payload is %q", r.name, got)
		}
		md, err := c.Metadata()
		if err != nil {
			t.Errorf("%s: %v", r.name, err)
			continue
		}
		if r.name == "ReadMetadata" && read != md {
			t.Errorf("ReadMetadata says %v, Metadata %v", read, md)
		}
		// The producer has the CPU in the upper 16 bits.
		id, ok := md.Uint64(sockmeta.KeyPacketID)
		if cpu, count := id>>48, id&(1<<48-1); !ok || count <= last[cpu] {
			t.Errorf("%s: packet id is %#x, %v after %#x", r.name, id, ok, last[cpu])
		} else {
			last[cpu] = count
		}
		if got, ok := md.Uint32(sockmeta.KeyServiceID); !ok || got != service {
			t.Errorf("%s: service is %d, %v", r.name, got, ok)
		}
		if got, ok := md.IfIndex(); !ok || got != index {
			t.Errorf("%s: interface is %d, %v, want %d", r.name, got, ok, index)
		}
		if got, ok := md.Uint64(sockmeta.KeyKtime); ok != timed || timed && (got < start || got > monotonic(t)) {
			t.Errorf("%s: ktime is %d, %v, sent after %d", r.name, got, ok, start)
		}
		if again, err := c.Metadata(); err != nil || again != md {
			t.Errorf("%s: asked again: %v, %v", r.name, again, err)
		}
	}
}

// TestUDPQueuedBefore wraps a socket that datagrams wait in already.
func TestUDPQueuedBefore(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	p := testutil.Pair(t)
	testutil.EnterCgroup(t)
	attachEchoUDP(t, p)
	for _, k := range udpKinds(p) {
		t.Run(k.name, func(t *testing.T) {
			plain := k.serve(t, p, openPlain).(*net.UDPConn)
			client := k.dial(t, p)
			const early, late = 5, 5
			for i := range early {
				send(t, client, numbered(uint64(i)))
			}
			waitReadable(t, plain)
			arrived(t, p, k)
			c := sockmeta.WrapUDP(plain)
			for i := range late {
				send(t, client, numbered(uint64(early+i)))
			}
			b := make([]byte, 64)
			for i := range early + late {
				var md sockmeta.Metadata
				n, _, err := c.ReadMetadata(b, &md)
				if got := string(b[:n]); got != numbered(uint64(i)) {
					t.Fatalf("payload %d is %q (%v)", i, got, err)
				}
				_, later := c.Metadata()
				if i < early && !native() {
					if !errors.Is(err, sockmeta.ErrNoMetadata) || !sockmeta.IsMetadataError(err) || !errors.Is(later, sockmeta.ErrNoMetadata) {
						t.Errorf("datagram %d: errors are %v and %v", i, err, later)
					}
					if md != (sockmeta.Metadata{}) {
						t.Errorf("datagram %d: metadata %v", i, md)
					}
					continue
				}
				if err != nil || later != nil {
					t.Errorf("datagram %d: errors are %v and %v", i, err, later)
				}
				wantNumbered(t, b[:n], &md)
				if md.Flags().Has(cmsg.FlagUnproven) {
					t.Errorf("datagram %d is unproven", i)
				}
			}
		})
	}
}

// arrived waits until all that the client has sent to k waits in the server's
// receive buffers: one interface with one queue keeps datagrams in order, so
// they do when one that was sent later has come.
func arrived(t testing.TB, p *netlab.Pair, k udpKind) {
	t.Helper()
	var sentinel *net.UDPConn
	must(t, p.Server.Do(func() (err error) {
		sentinel, err = net.ListenUDP("udp", udpAddr(k.server, 0))
		return err
	}))
	defer sentinel.Close()
	must(t, sentinel.SetReadDeadline(time.Now().Add(udpPatience)))
	sender := dialUDP(t, p.Client, nil, sentinel.LocalAddr().(*net.UDPAddr))
	send(t, sender, "done")
	_, err := sentinel.Read(make([]byte, 16))
	must(t, err)
}

// waitReadable waits for a datagram without reading it.
func waitReadable(t testing.TB, c *net.UDPConn) {
	t.Helper()
	rc, err := c.SyscallConn()
	must(t, err)
	must(t, rc.Read(func(fd uintptr) bool {
		_, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return err != unix.EAGAIN
	}))
}

// queueAll makes room for all that a test sends to the socket.
func queueAll(t *testing.T, c syscall.Conn) {
	t.Helper()
	withFD(t, c, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
	})
}

// TestUDPOverrun reads later than the receive map remembers.
func TestUDPOverrun(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	p := testutil.Pair(t)
	testutil.EnterCgroup(t)
	attachEchoUDP(t, p)
	a, err := bpf.Attach(bpf.Options{SlotsPerCPU: 16})
	must(t, err)
	defer a.Close()
	for _, k := range udpKinds(p) {
		t.Run(k.name, func(t *testing.T) {
			c := k.serve(t, p, openMeta).(*sockmeta.UDPConn)
			must(t, c.Support().Err())
			queueAll(t, c)
			client := k.dial(t, p)
			const count = 200
			for i := range count {
				send(t, client, numbered(uint64(i)))
			}
			arrived(t, p, k)
			var found, lost int
			b := make([]byte, 64)
			for i := range count {
				md := stale(t)
				n, addr, err := c.ReadMetadata(b, &md)
				if got := string(b[:n]); got != numbered(uint64(i)) {
					t.Fatalf("payload %d is %q (%v)", i, got, err)
				}
				if addr.Addr().Unmap() != k.client || addr.Port() != clientPort {
					t.Errorf("datagram %d is from %v", i, addr)
				}
				switch {
				case err == nil:
					found++
					wantNumbered(t, b[:n], &md)
				case errors.Is(err, sockmeta.ErrOverrun):
					lost++
					if !sockmeta.IsMetadataError(err) {
						t.Errorf("%v is no metadata error", err)
					}
					if md != (sockmeta.Metadata{}) {
						t.Errorf("lost, and metadata %v", md)
					}
					if md, err := c.Metadata(); !errors.Is(err, sockmeta.ErrOverrun) || md != (sockmeta.Metadata{}) {
						t.Errorf("Metadata says %v, %v", md, err)
					}
				default:
					t.Fatal(err)
				}
			}
			if native() && lost != 0 || !native() && (found == 0 || lost < count-int(a.Info().Slots)) {
				t.Errorf("%d found, %d lost of %d with %d slots", found, lost, count, a.Info().Slots)
			}
		})
	}
}

// stale returns metadata of some other packet.
func stale(t testing.TB) (md sockmeta.Metadata) {
	t.Helper()
	md.SetMark(4711)
	must(t, md.SetUint64(sockmeta.KeyPacketID, 4711))
	return md
}

// TestUDPAllocs has ReadMetadata allocate nothing, and the methods of
// net.UDPConn no more than they do there.
func TestUDPAllocs(t *testing.T) {
	testutil.RequireRoot(t)
	if raceDetector {
		t.Skip("the race detector allocates")
	}
	p := testutil.Pair(t)
	testutil.EnterCgroup(t)
	attachEchoUDP(t, p)
	for _, k := range udpKinds(p) {
		t.Run(k.name, func(t *testing.T) {
			client := k.dial(t, p)
			// Calls through an interface would let addresses escape.
			plain := k.serve(t, p, openPlain).(*net.UDPConn)
			b, oob := make([]byte, 64), make([]byte, 64)
			allocs := func(read func() error) float64 { return allocsPerDatagram(t, client, read) }
			want := map[string]float64{
				"Read":                allocs(func() error { _, err := plain.Read(b); return err }),
				"ReadFrom":            allocs(func() error { _, _, err := plain.ReadFrom(b); return err }),
				"ReadFromUDP":         allocs(func() error { _, _, err := plain.ReadFromUDP(b); return err }),
				"ReadFromUDPAddrPort": allocs(func() error { _, _, err := plain.ReadFromUDPAddrPort(b); return err }),
				"ReadMsgUDP":          allocs(func() error { _, _, _, _, err := plain.ReadMsgUDP(b, oob); return err }),
				"ReadMsgUDPAddrPort":  allocs(func() error { _, _, _, _, err := plain.ReadMsgUDPAddrPort(b, oob); return err }),
			}
			must(t, plain.Close())
			c := k.serve(t, p, openMeta).(*sockmeta.UDPConn)
			var md sockmeta.Metadata
			got := map[string]float64{
				"Read":                allocs(func() error { _, err := c.Read(b); return err }),
				"ReadFrom":            allocs(func() error { _, _, err := c.ReadFrom(b); return err }),
				"ReadFromUDP":         allocs(func() error { _, _, err := c.ReadFromUDP(b); return err }),
				"ReadFromUDPAddrPort": allocs(func() error { _, _, err := c.ReadFromUDPAddrPort(b); return err }),
				"ReadMsgUDP":          allocs(func() error { _, _, _, _, err := c.ReadMsgUDP(b, oob); return err }),
				"ReadMsgUDPAddrPort":  allocs(func() error { _, _, _, _, err := c.ReadMsgUDPAddrPort(b, oob); return err }),
				"ReadMetadata":        allocs(func() error { _, _, err := c.ReadMetadata(b, &md); return err }),
				"Metadata": allocs(func() error {
					if _, err := c.Read(b); err != nil {
						return err
					}
					_, err := c.Metadata()
					return err
				}),
			}
			for name, n := range got {
				if n > want[name] {
					t.Errorf("%s: %v allocations, want %v", name, n, want[name])
				}
			}
		})
	}
}

func allocsPerDatagram(t *testing.T, client *net.UDPConn, read func() error) float64 {
	t.Helper()
	payload := []byte(numbered(1))
	var err error
	allocs := testing.AllocsPerRun(100, func() {
		if _, werr := client.Write(payload); werr != nil {
			err = werr
		}
		if rerr := read(); rerr != nil {
			err = rerr
		}
	})
	must(t, err)
	return allocs
}

// TestUDPAllocsOverrun has the error that comes under load made beforehand.
func TestUDPAllocsOverrun(t *testing.T) {
	testutil.RequireRoot(t)
	handleTier(t)
	if raceDetector {
		t.Skip("the race detector allocates")
	}
	p := testutil.Pair(t)
	testutil.EnterCgroup(t)
	a, err := bpf.Attach(bpf.Options{SlotsPerCPU: 1})
	must(t, err)
	defer a.Close()
	k := udpKinds(p)[0]
	c, client := k.serve(t, p, openMeta).(*sockmeta.UDPConn), k.dial(t, p)
	const runs = 50
	for range runs + 1 + int(a.Info().Slots) {
		send(t, client, "payload")
	}
	arrived(t, p, k)
	var md sockmeta.Metadata
	b := make([]byte, 64)
	allocs := testing.AllocsPerRun(runs, func() { _, _, err = c.ReadMetadata(b, &md) })
	if !errors.Is(err, sockmeta.ErrOverrun) || allocs != 0 {
		t.Errorf("%v allocations for %v", allocs, err)
	}
}

// TestUDPMulticast has two sockets receive the same datagrams.
func TestUDPMulticast(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	p := testutil.Pair(t)
	testutil.EnterCgroup(t)
	attachProducer(t, p, bpf.ProducerOptions{})
	for _, tt := range []struct {
		network string
		group   netip.Addr
		local   netip.Addr
	}{
		{"udp4", netip.MustParseAddr("239.1.2.3"), p.ClientAddr4},
		{"udp6", netip.MustParseAddr("ff02::1234"), p.ClientAddr6},
	} {
		t.Run(tt.network, func(t *testing.T) {
			var conns []*sockmeta.UDPConn
			for range 3 {
				must(t, p.Server.Do(func() error {
					ifi, err := net.InterfaceByName(p.ServerIf)
					if err != nil {
						return err
					}
					c, err := sockmeta.ListenMulticastUDP(tt.network, ifi, udpAddr(tt.group, serverPort))
					if err != nil {
						return err
					}
					t.Cleanup(func() { _ = c.Close() })
					conns = append(conns, c)
					return c.SetReadDeadline(time.Now().Add(udpPatience))
				}))
			}
			client := multicastSender(t, p, tt.network, tt.local)
			to := udpAddr(tt.group, serverPort)
			var last uint64
			for i := range 5 {
				payload := fmt.Sprint("payload ", i)
				_, err := client.WriteToUDP([]byte(payload), to)
				must(t, err)
				var first sockmeta.Metadata
				for j, c := range conns {
					var md sockmeta.Metadata
					b := make([]byte, 64)
					n, _, err := c.ReadMetadata(b, &md)
					must(t, err)
					if got := string(b[:n]); got != payload {
						t.Fatalf("payload is %q, want %q", got, payload)
					}
					if j == 0 {
						first = md
					}
					id, ok := md.Uint64(sockmeta.KeyPacketID)
					if want, _ := first.Uint64(sockmeta.KeyPacketID); !ok || id != want || id == last {
						t.Errorf("packet id is %#x, %v, of the first socket's %#x, before that %#x", id, ok, want, last)
					}
				}
				last, _ = first.Uint64(sockmeta.KeyPacketID)
			}
		})
	}
}

func multicastSender(t *testing.T, p *netlab.Pair, network string, local netip.Addr) (c *net.UDPConn) {
	t.Helper()
	index, err := netlab.Index(p.Client, p.ClientIf)
	must(t, err)
	must(t, p.Client.Do(func() (err error) {
		c, err = net.ListenUDP(network, udpAddr(local, 0))
		return err
	}))
	t.Cleanup(func() { _ = c.Close() })
	withFD(t, c, func(fd int) error {
		if local.Is4() {
			return unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(index)})
		}
		return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, index)
	})
	return c
}

// TestUDPReusePort spreads datagrams over sockets with one address.
func TestUDPReusePort(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	p := testutil.Pair(t)
	testutil.EnterCgroup(t)
	attachEchoUDP(t, p)
	lc := sockmeta.ListenConfig{ListenConfig: net.ListenConfig{
		Control: func(_, _ string, rc syscall.RawConn) (err error) {
			cerr := rc.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			})
			return errors.Join(cerr, err)
		},
	}}
	for _, k := range udpKinds(p)[:4] {
		t.Run(k.name, func(t *testing.T) {
			const sockets, senders = 4, 64
			type datagram struct {
				socket  int
				payload string
				md      sockmeta.Metadata
				err     error
			}
			datagrams := make(chan datagram, senders)
			for i := range sockets {
				var c *sockmeta.UDPConn
				must(t, p.Server.Do(func() error {
					pc, err := lc.ListenPacket(t.Context(), k.network, netip.AddrPortFrom(k.listen, serverPort).String())
					if err == nil {
						c = pc.(*sockmeta.UDPConn)
					}
					return err
				}))
				done := make(chan struct{})
				t.Cleanup(func() {
					_ = c.Close()
					<-done
				})
				go func() {
					defer close(done)
					for {
						b := make([]byte, 64)
						d := datagram{socket: i}
						n, _, err := c.ReadMetadata(b, &d.md)
						if errors.Is(err, net.ErrClosed) {
							return
						}
						d.payload, d.err = string(b[:n]), err
						datagrams <- d
					}
				}()
			}
			for i := range senders {
				client := dialUDP(t, p.Client, nil, udpAddr(k.server, serverPort))
				send(t, client, numbered(uint64(i)))
			}
			used := map[int]bool{}
			timeout := time.After(udpPatience)
			for range senders {
				select {
				case d := <-datagrams:
					must(t, d.err)
					wantNumbered(t, []byte(d.payload), &d.md)
					used[d.socket] = true
				case <-timeout:
					t.Fatal("datagrams are missing")
				}
			}
			if len(used) < 2 {
				t.Errorf("all datagrams came to one socket")
			}
		})
	}
}

// From linux/udp.h.
const (
	solUDP     = 17
	udpSegment = 103
	udpGRO     = 104
)

// TestUDPAggregate receives several datagrams at once, as UDP_GRO has it. What
// merges them is in one case that the sender's one packet is never split, in
// the others GRO, which leaves packets with different metadata alone.
func TestUDPAggregate(t *testing.T) {
	testutil.RequireRoot(t)
	const segment, segments = 100, 5
	area := anchored(cmsg.FormatTLV, 16, 2, 1, 2)
	for _, tt := range []struct {
		name    string
		produce func(t *testing.T, p *netlab.Pair)
		merged  bool   // always
		area    []byte // of every packet
	}{
		{name: "no producer", produce: func(*testing.T, *netlab.Pair) {}, merged: true},
		{name: "same metadata", area: area, produce: func(t *testing.T, p *netlab.Pair) { attachArea(t, p.Server, p.ServerIf, area) }},
		{name: "packet ids", produce: func(t *testing.T, p *netlab.Pair) { attachProducer(t, p, bpf.ProducerOptions{}) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			testutil.Leaks(t)
			p := testutil.Pair(t)
			testutil.EnterCgroup(t)
			tt.produce(t, p)
			for _, k := range udpKinds(p) {
				t.Run(k.name, func(t *testing.T) {
					c := k.serve(t, p, openMeta).(*sockmeta.UDPConn)
					withFD(t, c, func(fd int) error { return unix.SetsockoptInt(fd, solUDP, udpGRO, 1) })
					client := k.dial(t, p)
					withFD(t, client, func(fd int) error { return unix.SetsockoptInt(fd, solUDP, udpSegment, segment) })
					payload := strings.Repeat("0123456789", segment*segments/10)
					send(t, client, payload)
					for got := 0; got < segment*segments; {
						n := wantAggregate(t, c, segment, tt.area)
						if tt.merged && n != segment*segments {
							t.Errorf("got %d bytes at once", n)
						}
						got += n
					}
				})
			}
		})
	}
}

// wantAggregate reads once, and returns how many bytes that gave.
func wantAggregate(t *testing.T, c *sockmeta.UDPConn, segment int, area []byte) int {
	t.Helper()
	b, oob := make([]byte, 64<<10), make([]byte, 128)
	n, oobn, flags, _, err := c.ReadMsgUDPAddrPort(b, oob)
	must(t, err)
	if flags != 0 || n%segment != 0 {
		t.Fatalf("got %d bytes, flags %#x", n, flags)
	}
	merged := n > segment
	size, ok := cmsg.Find(oob[:oobn], solUDP, udpGRO)
	if ok != merged || ok && binary.NativeEndian.Uint32(size) != uint32(segment) {
		t.Errorf("%d bytes, control message %x, %v", n, size, ok)
	}
	md, err := c.Metadata()
	must(t, err)
	if got := md.Flags().Has(cmsg.FlagAggregate); got != merged {
		t.Errorf("%d bytes, flags %v", n, md.Flags())
	}
	if _, ok := md.IfIndex(); !ok {
		t.Error("the built-in fields are gone")
	}
	if area != nil && !slices.Equal(md.Raw(), area) {
		t.Errorf("area is %x, want %x", md.Raw(), area)
	}
	return n
}

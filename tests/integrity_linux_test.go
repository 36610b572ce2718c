// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testprog"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

func init() { children["integrityReceivers"] = integrityChild }

// datagramsEnv overrides how many datagrams TestIntegrity sends by each mode of
// XDP.
const datagramsEnv = "SOCKMETA_INTEGRITY_DATAGRAMS"

// lapSlots are so few that datagrams wait in the sockets for longer than their
// records stay.
const lapSlots = 64

var xdpModes = []struct {
	name string
	flag link.XDPAttachFlags
}{
	{"native", link.XDPDriverMode},
	{"generic", link.XDPGenericMode},
}

// TestIntegrity is the proof that metadata is never another packet's. An XDP
// program copies each datagram's id from the payload into the metadata, records
// are lost because the ring of slots is small and datagrams because receive
// buffers are, and for each datagram that is read the two ids are the same or
// the metadata is reported lost. The kernel's counters account for those that
// never arrive.
func TestIntegrity(t *testing.T) {
	count := integrityDatagrams(t)
	for _, mode := range xdpModes {
		t.Run(mode.name, func(t *testing.T) {
			testutil.Leaks(t)
			p := testutil.Pair(t)
			producer := attachEcho(t, p, "echo_udp", mode.flag)
			producer.keepToUDP(t, p)
			cg := testutil.EnterCgroup(t)
			attachLapping(t, cg)

			var r *receivers
			must(t, p.Server.Do(func() (err error) {
				r, err = startReceivers()
				return err
			}))
			defer r.stop()
			for i, c := range r.conns {
				if err := checkSupport(c, true); err != nil {
					t.Fatalf("socket %d: %v", i, err)
				}
			}
			run, err := sendAll(p, mode.flag, count)
			if err != nil {
				t.Fatal(err)
			}
			r.stop()
			run.verify(t, r.counts)
			producer.verify(t)
		})
	}
}

// TestIntegrityUnprivileged is TestIntegrity for a process that may not map the
// slots and asks for each record by getsockopt.
func TestIntegrityUnprivileged(t *testing.T) {
	testutil.Leaks(t)
	p := testutil.Pair(t)
	producer := attachEcho(t, p, "echo_udp", link.XDPDriverMode)
	producer.keepToUDP(t, p)
	cg := testutil.Cgroup(t)
	attachLapping(t, cg)

	isReady, ready, err := os.Pipe()
	must(t, err)
	defer isReady.Close()
	defer ready.Close()
	stop, stopIt, err := os.Pipe()
	must(t, err)
	defer stop.Close()

	count := min(50_000, integrityDatagrams(t))
	var run *integrityRun
	var runErr error
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		// The child ends when it finds the pipe closed.
		defer stopIt.Close()
		if _, runErr = io.ReadFull(isReady, make([]byte, 1)); runErr != nil {
			return
		}
		run, runErr = sendAll(p, link.XDPDriverMode, count)
	}()
	out, err := testutil.RunChild(t, "integrityReceivers", testutil.ChildOptions{
		UID: 65534, GID: 65534, NoNewPrivs: true,
		Cgroup: cg.Path(), Netns: p.Server,
		Files: []*os.File{ready, stop},
	})
	must(t, ready.Close())
	<-sent
	if err != nil {
		t.Fatalf("child: %v\n%s", err, out)
	}
	must(t, runErr)
	var counts []*readCounts
	if err := json.Unmarshal(out, &counts); err != nil {
		t.Fatalf("child: %v\n%s", err, out)
	}
	run.verify(t, counts)
	producer.verify(t)
}

// integrityChild reads datagrams until its parent closes a pipe, and prints
// what it counted.
func integrityChild() error {
	ready, stop := testutil.ChildFile(0), testutil.ChildFile(1)
	r, err := startReceivers()
	if err != nil {
		return err
	}
	for i, c := range r.conns {
		if err := checkSupport(c, false); err != nil {
			return fmt.Errorf("socket %d: %w", i, err)
		}
	}
	if _, err := ready.Write([]byte{0}); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, stop); err != nil {
		return err
	}
	r.stop()
	return json.NewEncoder(os.Stdout).Encode(r.counts)
}

// TestIntegrityLockstep reads each datagram before the next is sent: with slots
// to spare no metadata is ever lost.
func TestIntegrityLockstep(t *testing.T) {
	testutil.Leaks(t)
	p := testutil.Pair(t)
	producer := attachEcho(t, p, "echo_udp", link.XDPDriverMode)
	cg := testutil.EnterCgroup(t)
	a, err := bpf.Attach(bpf.Options{Cgroup: cg.Path()})
	must(t, err)
	t.Cleanup(func() { _ = a.Close() })

	var md sockmeta.Metadata
	b := make([]byte, integrityPayload)
	for i, f := range integrityFlows {
		var c *sockmeta.UDPConn
		var s *sender
		must(t, p.Server.Do(func() (err error) {
			c, err = f.listen()
			return err
		}))
		defer c.Close()
		must(t, p.Client.Do(func() (err error) {
			s, err = f.dial(i)
			return err
		}))
		defer s.close()
		must(t, c.SetReadDeadline(time.Now().Add(time.Minute)))
		var counts readCounts
		for n := range testutil.Scale(5000) {
			must(t, s.send(1))
			size, _, err := c.ReadMetadata(b, &md)
			counts.add(b[:size], &md, err, i)
			if err != nil || counts.Mismatched != 0 {
				t.Fatalf("socket %d, datagram %d: %v %s", i, n, err, counts.First)
			}
		}
	}
	producer.verify(t)
}

func integrityDatagrams(t *testing.T) int {
	if s, ok := os.LookupEnv(datagramsEnv); ok {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			t.Fatalf("%s=%s", datagramsEnv, s)
		}
		return n
	}
	return testutil.Scale(1_000_000)
}

func attachLapping(t *testing.T, cg *netlab.Cgroup) {
	t.Helper()
	a, err := bpf.Attach(bpf.Options{Cgroup: cg.Path(), SlotsPerCPU: lapSlots})
	must(t, err)
	t.Cleanup(func() { _ = a.Close() })
}

// echo is one of testprog's programs at the server's interface.
type echo struct {
	link    link.Link
	refused *ebpf.Variable
	onlyUDP *ebpf.Program // for the client's interface
}

func attachEcho(t testing.TB, p *netlab.Pair, program string, mode link.XDPAttachFlags) *echo {
	t.Helper()
	spec, err := testprog.Prepared(testprog.LoadEcho())
	must(t, err)
	coll, err := ebpf.NewCollection(spec)
	must(t, err)
	t.Cleanup(coll.Close)
	e := &echo{refused: coll.Variables["refused"], onlyUDP: coll.Programs["only_udp"]}
	must(t, p.Server.Do(func() error {
		ifi, err := net.InterfaceByName(p.ServerIf)
		if err != nil {
			return err
		}
		e.link, err = link.AttachXDP(link.XDPOptions{
			Program: coll.Programs[program], Interface: ifi.Index, Flags: mode,
		})
		return err
	}))
	t.Cleanup(func() { _ = e.link.Close() })
	return e
}

// keepToUDP has the link's counters be about the client's datagrams: nothing else
// leaves, and none of them waits for the server's hardware address.
func (e *echo) keepToUDP(t testing.TB, p *netlab.Pair) {
	t.Helper()
	must(t, p.Introduce())
	attachTC(t, p.Client, p.ClientIf, ebpf.AttachTCXEgress, e.onlyUDP)
}

// verify checks that every packet got its metadata.
func (e *echo) verify(t *testing.T) {
	t.Helper()
	var n uint64
	must(t, e.refused.Get(&n))
	if n != 0 {
		t.Errorf("%d packets had no room for metadata", n)
	}
}

// A flow is a socket of the server's and the client's that send to it.
type flow struct {
	network   string
	local     netip.AddrPort // of the server's socket
	from      []netip.AddrPort
	to        []netip.AddrPort // for each of from
	connected bool
	buffer    int
}

const (
	integrityPayload = 256
	smallBuffer      = 32 << 10
	largeBuffer      = 4 << 20
)

// The addresses are those of netlab.Pair; the ports are nobody else's in a
// namespace of its own.
var integrityFlows = []flow{
	{
		network: "udp4", local: netip.MustParseAddrPort("192.0.2.2:7000"), buffer: smallBuffer,
		from: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:8000")},
		to:   []netip.AddrPort{netip.MustParseAddrPort("192.0.2.2:7000")},
	},
	{
		network: "udp6", local: netip.MustParseAddrPort("[2001:db8::2]:7001"), buffer: largeBuffer,
		from: []netip.AddrPort{netip.MustParseAddrPort("[2001:db8::1]:8001")},
		to:   []netip.AddrPort{netip.MustParseAddrPort("[2001:db8::2]:7001")},
	},
	{
		network: "udp", local: netip.MustParseAddrPort("[::]:7002"), buffer: smallBuffer,
		from: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:8002"), netip.MustParseAddrPort("[2001:db8::1]:8002")},
		to:   []netip.AddrPort{netip.MustParseAddrPort("192.0.2.2:7002"), netip.MustParseAddrPort("[2001:db8::2]:7002")},
	},
	{
		network: "udp4", local: netip.MustParseAddrPort("192.0.2.2:7003"), buffer: largeBuffer, connected: true,
		from: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:8003")},
		to:   []netip.AddrPort{netip.MustParseAddrPort("192.0.2.2:7003")},
	},
}

// listen makes the server's socket, in the thread's namespace.
func (f *flow) listen() (*sockmeta.UDPConn, error) {
	var c *sockmeta.UDPConn
	var err error
	if f.connected {
		c, err = sockmeta.DialUDP(f.network, net.UDPAddrFromAddrPort(f.local), net.UDPAddrFromAddrPort(f.from[0]))
	} else {
		c, err = sockmeta.ListenUDP(f.network, net.UDPAddrFromAddrPort(f.local))
	}
	if err != nil {
		return nil, err
	}
	if err := c.SetReadBuffer(f.buffer); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// dial makes the client's sockets, in the thread's namespace.
func (f *flow) dial(number int) (*sender, error) {
	s := &sender{rng: rand.New(rand.NewPCG(1, uint64(number))), id: flowID(number)}
	for i := range f.from {
		c, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(f.from[i]), net.UDPAddrFromAddrPort(f.to[i]))
		if err != nil {
			s.close()
			return nil, err
		}
		s.conns = append(s.conns, c)
	}
	return s, nil
}

// flowID returns the id in front of a flow's first. The flow is in the upper
// byte.
func flowID(number int) uint64 { return uint64(number+1) << 56 }

func flowOf(id uint64) int { return int(id>>56) - 1 }

// sender sends the datagrams of a flow. Their ids count up, so that none comes
// twice.
type sender struct {
	conns []*net.UDPConn
	rng   *rand.Rand
	id    uint64
}

func (s *sender) close() {
	for _, c := range s.conns {
		_ = c.Close()
	}
}

func (s *sender) send(count int) error {
	var b [integrityPayload]byte
	for range count {
		s.id++
		binary.NativeEndian.PutUint64(b[:], s.id)
		if _, err := s.conns[s.id%uint64(len(s.conns))].Write(b[:8+s.rng.IntN(len(b)-7)]); err != nil {
			return err
		}
	}
	return nil
}

// sendBursts sends bursts with pauses between them, so that the reader now
// keeps up and now does not.
func (s *sender) sendBursts(count int) error {
	for count > 0 {
		burst := min(1+s.rng.IntN(2*lapSlots), count)
		if err := s.send(burst); err != nil {
			return err
		}
		count -= burst
		time.Sleep(time.Duration(s.rng.IntN(int(time.Millisecond))))
	}
	return nil
}

// readCounts says what became of the datagrams of one socket.
type readCounts struct {
	Received, Matched, Overrun, NoMetadata, Mismatched int
	// Cut are those whose record recvmsg could not write (MSG_CTRUNC).
	Cut int
	// Records that were fetched again, and for how many of them that was
	// done until they were lost.
	Again, AgainOverrun int
	First               string // mismatch
}

// add counts what ReadMetadata returned.
func (c *readCounts) add(payload []byte, md *sockmeta.Metadata, err error, number int) {
	switch {
	case errors.Is(err, sockmeta.ErrOverrun):
		c.Overrun++
		return
	case errors.Is(err, sockmeta.ErrNoMetadata):
		c.NoMetadata++
		return
	case errors.Is(err, sockmeta.ErrTruncated):
		c.Cut++
		return
	}
	if c.check(payload, md, number) {
		c.Matched++
	} else {
		c.Mismatched++
	}
}

// again fetches the record of the last datagram until it is lost, but not for
// long: once in a while that meets a program that is writing the slot.
func (c *readCounts) again(conn *sockmeta.UDPConn, payload []byte, number int) {
	for end := time.Now().Add(time.Millisecond); time.Now().Before(end); {
		md, err := conn.Metadata()
		if errors.Is(err, sockmeta.ErrOverrun) {
			c.AgainOverrun++
			return
		}
		c.Again++
		if err != nil || !c.check(payload, &md, number) {
			c.Mismatched++
		}
	}
}

// check says whether the metadata is that of the datagram, all of it.
func (c *readCounts) check(payload []byte, md *sockmeta.Metadata, number int) bool {
	want := binary.NativeEndian.Uint64(payload)
	id, ok := md.Uint64(testprog.KeyID)
	filler, _ := md.Bytes(testprog.KeyFiller)
	ok = ok && id == want && flowOf(want) == number &&
		(len(filler) == 8*testprog.FillerWords || len(filler) == testprog.FillerLeast)
	for word := payload[:8]; ok && len(filler) > 0; filler = filler[min(8, len(filler)):] {
		ok = bytes.HasPrefix(word, filler[:min(8, len(filler))])
	}
	if !ok && c.First == "" {
		c.First = fmt.Sprintf("datagram %#x of flow %d has metadata %v", want, number, md)
	}
	return ok
}

// receivers are the server's sockets, each with a goroutine that reads.
type receivers struct {
	conns  []*sockmeta.UDPConn
	counts []*readCounts
	wg     sync.WaitGroup
}

// startReceivers makes the sockets in the thread's namespace.
func startReceivers() (*receivers, error) {
	r := &receivers{}
	for _, f := range integrityFlows {
		c, err := f.listen()
		if err != nil {
			r.stop()
			return nil, err
		}
		r.conns = append(r.conns, c)
	}
	for i, c := range r.conns {
		counts := &readCounts{}
		r.counts = append(r.counts, counts)
		r.wg.Go(func() { counts.read(c, i) })
	}
	return r, nil
}

// stop ends the reading; afterwards counts are final.
func (r *receivers) stop() {
	for _, c := range r.conns {
		_ = c.Close()
	}
	r.wg.Wait()
}

// read reads until the socket is closed. At times it does something else, so
// that datagrams wait while others take their slots.
func (c *readCounts) read(conn *sockmeta.UDPConn, number int) {
	rng := rand.New(rand.NewPCG(2, uint64(number)))
	b := make([]byte, integrityPayload)
	var md sockmeta.Metadata
	for {
		n, _, err := conn.ReadMetadata(b, &md)
		if err != nil && !sockmeta.IsMetadataError(err) {
			return
		}
		c.Received++
		c.add(b[:n], &md, err, number)
		switch what := rng.IntN(1024); {
		case what == 0:
			time.Sleep(time.Duration(rng.IntN(3 * int(time.Millisecond))))
		case what < 16 && err == nil:
			c.again(conn, b[:n], number)
		}
	}
}

// integrityRun says what became of the datagrams, by the kernel's counters.
type integrityRun struct {
	sent, delivered, dropped int
	byLink                   int // of dropped
}

// sendAll sends count datagrams and waits until each has been read or dropped.
func sendAll(p *netlab.Pair, mode link.XDPAttachFlags, count int) (*integrityRun, error) {
	before, err := readUDPCounters(p, mode)
	if err != nil {
		return nil, err
	}
	senders := make([]*sender, len(integrityFlows))
	defer func() {
		for _, s := range senders {
			if s != nil {
				s.close()
			}
		}
	}()
	for i := range integrityFlows {
		err := p.Client.Do(func() (err error) {
			senders[i], err = integrityFlows[i].dial(i)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	errs := make([]error, len(senders))
	var wg sync.WaitGroup
	left := count
	for i, s := range senders {
		share := left / (len(senders) - i)
		left -= share
		wg.Go(func() { errs[i] = s.sendBursts(share) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}

	run := &integrityRun{sent: count}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		now, err := readUDPCounters(p, mode)
		if err != nil {
			return nil, err
		}
		run.delivered = now.delivered - before.delivered
		run.dropped = now.dropped - before.dropped
		run.byLink = now.byLink - before.byLink
		if run.delivered+run.dropped == run.sent {
			return run, nil
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%d datagrams sent, %d delivered, and of %d dropped %d by the link",
				run.sent, run.delivered, run.dropped, run.byLink)
		}
	}
}

func (r *integrityRun) verify(t *testing.T, counts []*readCounts) {
	t.Helper()
	var sum readCounts
	for i, c := range counts {
		t.Logf("%-4s port %d: %+v", integrityFlows[i].network, integrityFlows[i].local.Port(), *c)
		if c.Mismatched != 0 {
			t.Errorf("%d times the metadata of another packet: %s", c.Mismatched, c.First)
		}
		sum.Received += c.Received
		sum.Matched += c.Matched
		sum.Overrun += c.Overrun
		sum.NoMetadata += c.NoMetadata
		sum.Cut += c.Cut
		sum.Mismatched += c.Mismatched
		sum.Again += c.Again
		sum.AgainOverrun += c.AgainOverrun
	}
	t.Logf("sent %d, dropped %d, %d of them by the link, in all: %+v", r.sent, r.dropped, r.byLink, sum)
	if sum.Received != r.delivered {
		t.Errorf("received %d, and the kernel delivered %d", sum.Received, r.delivered)
	}
	// Where a loaded machine schedules the readers late, most are lost.
	if sum.Received < r.sent/10 || sum.Matched == 0 {
		t.Errorf("received only %d of %d datagrams, and the metadata of %d", sum.Received, r.sent, sum.Matched)
	}
	switch {
	case native() && (sum.Matched+sum.Cut != sum.Received || sum.Cut > sum.Received/1000):
		t.Errorf("received %d, and the metadata of %d; %d were cut", sum.Received, sum.Matched, sum.Cut)
	case !native() && sum.Overrun == 0:
		t.Error("the ring of slots never lapped")
	}
	if r.dropped == 0 {
		t.Error("no receive buffer was ever full")
	}
}

// udpCounters are what the kernel counts of the datagrams from a Pair's client.
type udpCounters struct {
	delivered int // to a recvmsg
	dropped   int // by sockets, and by the link
	byLink    int // of dropped
}

func readUDPCounters(p *netlab.Pair, mode link.XDPAttachFlags) (u udpCounters, err error) {
	var in, out int
	err = p.Server.Do(func() error {
		for file, prefix := range map[string]string{"snmp": "Udp", "snmp6": "Udp6"} {
			values, err := snmp(file)
			if err != nil {
				return err
			}
			u.delivered += values[prefix+"InDatagrams"]
			// RcvbufErrors and MemErrors are among them.
			u.dropped += values[prefix+"InErrors"]
		}
		in, _, err = linkDrops(p.ServerIf)
		return err
	})
	if err != nil {
		return u, err
	}
	err = p.Client.Do(func() error {
		_, out, err = linkDrops(p.ClientIf)
		return err
	})
	u.byLink = out
	// Without native XDP packets wait in the CPU's backlog, and both ends count
	// what has no room there (enqueue_to_backlog in net/core/dev.c, veth_xmit in
	// drivers/net/veth.c).
	if mode == link.XDPDriverMode {
		u.byLink += in
	}
	u.dropped += u.byLink
	return u, err
}

// snmp reads the counters of the thread's namespace. In /proc/net/snmp a line
// of names precedes one of values; in snmp6 each line has one name and value.
func snmp(file string) (map[string]int, error) {
	b, err := os.ReadFile("/proc/thread-self/net/" + file)
	if err != nil {
		return nil, err
	}
	values := make(map[string]int)
	var names []string
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if file == "snmp6" {
			values[f[0]], _ = strconv.Atoi(f[1])
			continue
		}
		if names == nil {
			names = f
			continue
		}
		for i := 1; i < len(f); i++ {
			values[strings.TrimSuffix(f[0], ":")+names[i]], _ = strconv.Atoi(f[i])
		}
		names = nil
	}
	return values, nil
}

// linkDrops returns how many packets a link of the thread's namespace dropped
// on reception and on transmission.
func linkDrops(name string) (in, out int, err error) {
	b, err := os.ReadFile("/proc/thread-self/net/dev")
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 13 || f[0] != name+":" {
			continue
		}
		if in, err = strconv.Atoi(f[4]); err == nil {
			out, err = strconv.Atoi(f[12])
		}
		return in, out, err
	}
	return 0, 0, fmt.Errorf("no link %s", name)
}

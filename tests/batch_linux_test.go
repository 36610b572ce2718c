// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testprog"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// batchConn is x/net's interface, which QUIC implementations look for.
type batchConn interface {
	ReadBatch(ms []ipv4.Message, flags int) (int, error)
	WriteBatch(ms []ipv4.Message, flags int) (int, error)
}

// batchOf returns the wrapper, or x/net's batches of a plain socket.
func batchOf(c udpConn) batchConn {
	if b, ok := c.(batchConn); ok {
		return b
	}
	return ipv4.NewPacketConn(c)
}

// byReadBatch reads single datagrams by ReadBatch.
type byReadBatch struct{ *sockmeta.UDPConn }

func (c byReadBatch) ReadMsgUDPAddrPort(b, oob []byte) (n, oobn, flags int, addr netip.AddrPort, err error) {
	ms := []ipv4.Message{{Buffers: [][]byte{b}, OOB: oob}}
	if _, err := c.ReadBatch(ms, 0); err != nil {
		return 0, 0, 0, addr, err
	}
	return ms[0].N, ms[0].NN, ms[0].Flags, ms[0].Addr.(*net.UDPAddr).AddrPort(), nil
}

// byReadBatchMetadata reads single datagrams by ReadBatchMetadata.
type byReadBatchMetadata struct{ *sockmeta.UDPConn }

func (c byReadBatchMetadata) ReadMsgUDPAddrPort(b, oob []byte) (n, oobn, flags int, addr netip.AddrPort, err error) {
	ms := []sockmeta.Message{{Buf: b, OOB: oob}}
	if _, err := c.ReadBatchMetadata(ms, 0); err != nil {
		return 0, 0, 0, addr, err
	}
	m := &ms[0]
	return m.N, m.NN, m.Flags, m.Addr, nil
}

// TestBatchControlMessages compares the control messages that batches give, for
// buffers of every size, with those that a plain socket gives.
func TestBatchControlMessages(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	p := testutil.Pair(t)
	testutil.EnterCgroup(t)
	keepStamping(t, p.Server)
	step := 5
	if testing.Short() {
		step = 31
	}
	for _, k := range udpKinds(p)[:4] {
		times := timeOptions()
		for _, set := range []optionSet{
			{name: "nothing"},
			{name: "packet", before: packetOptions(k)},
			{name: "times", after: times["TIMESTAMP and TIMESTAMPING"]},
			{name: "take", after: times["TIMESTAMPING take"]},
			{name: "report", before: times["TIMESTAMPING report"]},
			{name: "packet and times", before: append(packetOptions(k), times["TIMESTAMPNS and _NEW"]...)},
		} {
			t.Run(k.name+" "+set.name, func(t *testing.T) {
				plain, meta := newTwins(t, p, k, set)
				plain.overflow(t)
				meta.overflow(t)
				c := meta.udpConn.(*sockmeta.UDPConn)
				for _, by := range []udpConn{byReadBatch{c}, byReadBatchMetadata{c}} {
					meta.udpConn = by
					for size := 0; size <= 300 && !t.Failed(); size += step {
						comparePayload(t, &plain, &meta, fmt.Sprintf("%T %d", by, size), size)
					}
				}
			})
		}
	}
}

// comparePayload sends a payload to both, and compares the control messages.
func comparePayload(t *testing.T, plain, meta *twin, payload string, size int) {
	t.Helper()
	want, wantn, wantFlags := plain.exchange(t, payload, size)
	got, gotn, gotFlags := meta.exchange(t, payload, size)
	if gotn != wantn || gotFlags != wantFlags {
		t.Fatalf("%s: oobn %d, flags %#x, plain %d, %#x", payload, gotn, gotFlags, wantn, wantFlags)
	}
	wantTail, gotTail := want[wantn:], got[gotn:]
	want, got = withoutTimes(t, want[:wantn]), withoutTimes(t, got[:gotn])
	if !bytes.Equal(got, want) || !bytes.Equal(gotTail, wantTail) {
		t.Fatalf("%s:\n      %x %x\nplain %x %x", payload, got, gotTail, want, wantTail)
	}
}

// TestBatchForeignMessages has 112 bytes of the application's own control messages in
// 128 bytes, as QUIC implementations have them on a wildcard socket.
func TestBatchForeignMessages(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	p := testutil.Pair(t)
	testutil.EnterCgroup(t)
	attachEchoUDP(t, p)
	k := udpKind{"udp4", "udp4", netip.IPv4Unspecified(), p.ServerAddr4, p.ClientAddr4, false}
	own := []sockOption{
		{unix.IPPROTO_IP, unix.IP_PKTINFO, 1},
		{unix.IPPROTO_IP, unix.IP_RECVTOS, 1},
		{unix.IPPROTO_IP, unix.IP_RECVTTL, 1},
		{unix.SOL_SOCKET, soRcvMark, 1},
	}
	const size, room, count = 28 + 4 + 3*24, 128, 8
	plain, meta := newTwins(t, p, k, optionSet{before: own})
	var all [2][]ipv4.Message
	for i, tw := range []twin{plain, meta} {
		for id := range uint64(count) {
			send(t, tw.client, numbered(id))
		}
		all[i] = make([]ipv4.Message, count)
		for j := range all[i] {
			all[i][j] = ipv4.Message{Buffers: [][]byte{make([]byte, 64)}, OOB: make([]byte, room)}
		}
		readBatches(t, batchOf(tw.udpConn), all[i])
	}
	for j := range count {
		want, got := all[0][j], all[1][j]
		if want.NN < size {
			t.Fatalf("%d bytes of control messages on a plain socket, too few to tell", want.NN)
		}
		if got.NN != want.NN || got.Flags != want.Flags || got.N != want.N || !bytes.Equal(got.OOB, want.OOB) {
			t.Errorf("datagram %d: %d bytes, flags %#x, %x\nplain: %d bytes, flags %#x, %x",
				j, got.N, got.Flags, got.OOB[:got.NN], want.N, want.Flags, want.OOB[:want.NN])
		}
	}
}

// readBatches fills all of ms, by as many calls as it takes.
func readBatches(t testing.TB, c batchConn, ms []ipv4.Message) {
	t.Helper()
	for len(ms) > 0 {
		n, err := c.ReadBatch(ms, 0)
		must(t, err)
		if n == 0 {
			t.Fatal("nothing was read, and no error")
		}
		ms = ms[n:]
	}
}

// TestBatchParity runs the same script by x/net's batches on a plain socket, and by
// ours on sockets of every kind.
func TestBatchParity(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	for _, script := range []struct {
		name string
		run  func(t *testing.T, tr *transcript, c udpConn, b batchConn, client *net.UDPConn)
	}{
		{"receive", batchReceiveScript},
		{"send", batchSendScript},
		{"errors", batchErrorScript},
	} {
		t.Run(script.name, func(t *testing.T) {
			p := testutil.Pair(t)
			testutil.EnterCgroup(t)
			for _, k := range udpKinds(p) {
				t.Run(k.name, func(t *testing.T) {
					run := func(open openUDP) (tr transcript) {
						c := k.serve(t, p, open)
						client := k.dial(t, p)
						defer client.Close()
						defer c.Close()
						script.run(t, &tr, c, batchOf(c), client)
						return tr
					}
					plain := run(openPlain)
					run(openMeta).compare(t, plain)
					run(openSplit).compare(t, plain)
				})
			}
		})
	}
}

func batchReceiveScript(t *testing.T, tr *transcript, c udpConn, b batchConn, client *net.UDPConn) {
	n, err := b.ReadBatch(nil, 0)
	tr.add("no messages: %d, %v", n, err)
	n, err = b.ReadBatch(make([]ipv4.Message, 3), unix.MSG_DONTWAIT)
	tr.add("nothing there: %v, %s", n > 0, describeErr(err))

	whole := func() []byte { return bytes.Repeat([]byte{0xEE}, 16) }
	for _, tt := range []struct {
		payload string
		buffers [][]byte
	}{
		{"payload", [][]byte{whole()}},
		{"in several buffers", [][]byte{whole()[:3], {}, whole()[:4], whole()}},
		{"too long for all of the buffers", [][]byte{whole(), whole()[:5]}},
		{"", [][]byte{whole()}},
		{"no buffer", nil},
	} {
		send(t, client, tt.payload)
		ms := []ipv4.Message{
			{Buffers: tt.buffers, N: 99, NN: 99, Flags: 99},
			{Buffers: [][]byte{whole()}, N: 99, NN: 99, Flags: 99},
		}
		n, err := b.ReadBatch(ms, unix.MSG_WAITFORONE)
		tr.add("%q: %d, %v", tt.payload, n, err)
		for _, m := range ms {
			tr.add("%d %d %#x %q %s", m.N, m.NN, m.Flags, m.Buffers, describeAddr(m.Addr))
		}
	}

	send(t, client, "real length")
	ms := []ipv4.Message{{Buffers: [][]byte{make([]byte, 4)}}}
	n, err = b.ReadBatch(ms, unix.MSG_PEEK|unix.MSG_TRUNC)
	tr.add("real length: %d, %v, %d %#x %q", n, err, ms[0].N, ms[0].Flags, ms[0].Buffers)
	for _, flags := range []int{unix.MSG_PEEK, 0, unix.MSG_DONTWAIT} {
		ms[0].Buffers[0] = make([]byte, 20)
		n, err := b.ReadBatch(ms, flags)
		tr.add("flags %#x: %v, %s, %d %#x %q", flags, n > 0, describeErr(err), ms[0].N, ms[0].Flags, ms[0].Buffers)
	}

	// All that waits comes by one call.
	for i := range 5 {
		send(t, client, fmt.Sprint("datagram ", i))
	}
	waitQueued(t, c, 5)
	ms = make([]ipv4.Message, 8)
	for i := range ms {
		ms[i].Buffers = [][]byte{make([]byte, 16)}
	}
	n, err = b.ReadBatch(ms[:3], 0)
	tr.add("three: %d, %v, %q %q %q", n, err, ms[0].Buffers, ms[1].Buffers, ms[2].Buffers)
	n, err = b.ReadBatch(ms, 0)
	tr.add("the others: %d, %v, %q %q", n, err, ms[0].Buffers, ms[1].Buffers)
}

// waitQueued waits until datagrams wait in the receive buffer.
func waitQueued(t testing.TB, c syscall.Conn, datagrams int) {
	t.Helper()
	for end := time.Now().Add(udpPatience); ; time.Sleep(time.Millisecond) {
		var m netlab.MemInfo
		withFD(t, c, func(fd int) (err error) {
			m, err = netlab.SocketMemInfo(fd)
			return err
		})
		// Each takes a buffer of at least 512 bytes.
		if int(m.RmemAlloc) >= datagrams*512 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d bytes wait", m.RmemAlloc)
		}
	}
}

func batchSendScript(t *testing.T, tr *transcript, c udpConn, b batchConn, client *net.UDPConn) {
	n, err := b.WriteBatch(nil, 0)
	tr.add("no messages: %d, %v", n, err)
	must(t, client.SetReadDeadline(time.Now().Add(udpPatience)))
	to := client.LocalAddr()
	if c.RemoteAddr() != nil {
		to = nil
	}
	read := func() {
		buf := make([]byte, 64)
		n, err := client.Read(buf)
		tr.add("came: %q, %v", buf[:n], err)
	}
	ms := []ipv4.Message{
		{Buffers: [][]byte{[]byte("one")}, Addr: to, N: 99, NN: 99},
		{Buffers: [][]byte{[]byte("in "), {}, []byte("several")}, Addr: to, OOB: hopsMessage(client.LocalAddr().(*net.UDPAddr)), N: 99, NN: 99},
		{Buffers: [][]byte{{}}, Addr: to, N: 99, NN: 99},
		{Addr: to, N: 99, NN: 99},
	}
	n, err = b.WriteBatch(ms, 0)
	tr.add("sent %d, %v", n, err)
	for _, m := range ms {
		tr.add("%d %d %#x", m.N, m.NN, m.Flags)
		read()
	}

	// What cannot be sent ends the batch, and fails the next.
	bad := ipv4.Message{Buffers: [][]byte{make([]byte, 1<<17)}, Addr: to}
	n, err = b.WriteBatch([]ipv4.Message{ms[0], bad, ms[1]}, 0)
	tr.add("in part: %d, %v", n, err)
	read()
	n, err = b.WriteBatch([]ipv4.Message{bad, ms[1]}, 0)
	tr.add("not even the first: %v, %s", n > 0, describeErr(err))
	n, err = b.WriteBatch([]ipv4.Message{{Buffers: ms[0].Buffers, Addr: to, OOB: []byte("\x01no control message")}}, 0)
	tr.add("malformed: %v, %s", n > 0, describeErr(err))
	if to != nil {
		n, err = b.WriteBatch([]ipv4.Message{{Buffers: ms[0].Buffers}}, 0)
		tr.add("to nowhere: %v, %s", n > 0, describeErr(err))
		n, err = b.WriteBatch([]ipv4.Message{{Buffers: ms[0].Buffers, Addr: &net.UnixAddr{Name: "x"}}}, 0)
		tr.add("to elsewhere: %v, %s", n > 0, describeErr(err))
		n, err = b.WriteBatch([]ipv4.Message{{Buffers: ms[0].Buffers, Addr: &net.UDPAddr{IP: net.IPv6loopback, Port: 9}}}, 0)
		tr.add("to IPv6: %v, %s", n > 0, describeErr(err))
	}
}

func batchErrorScript(t *testing.T, tr *transcript, c udpConn, b batchConn, client *net.UDPConn) {
	ms := []ipv4.Message{{Buffers: [][]byte{make([]byte, 16)}, Addr: client.LocalAddr()}}
	report := func(what string, n int, err error) { tr.add("%s: %v, %s", what, n > 0, describeErr(err)) }

	send(t, client, "in time")
	waitQueued(t, c, 1)
	must(t, c.SetReadDeadline(time.Now().Add(-time.Second)))
	n, err := b.ReadBatch(ms, 0)
	report("deadline", n, err)
	must(t, c.SetWriteDeadline(time.Now().Add(-time.Second)))
	n, err = b.WriteBatch(ms, 0)
	report("write deadline", n, err)
	must(t, c.SetDeadline(time.Time{}))
	n, err = b.ReadBatch(ms, 0)
	report("without", n, err)
	tr.add("%q", ms[0].Buffers)

	must(t, c.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
	n, err = b.ReadBatch(ms, 0)
	report("waited", n, err)
	must(t, c.SetReadDeadline(time.Time{}))

	// Close unblocks.
	closed := make(chan error)
	go func() {
		_, err := b.ReadBatch([]ipv4.Message{{Buffers: [][]byte{make([]byte, 16)}}}, 0)
		closed <- err
	}()
	time.Sleep(10 * time.Millisecond)
	must(t, c.Close())
	report("closed", 0, <-closed)
	n, err = b.ReadBatch(ms, 0)
	report("after Close", n, err)
	n, err = b.WriteBatch(ms, 0)
	report("write after Close", n, err)
	n, err = b.ReadBatch(nil, 0)
	report("nothing after Close", n, err)
}

// openSplit is openMeta with GRO.
func openSplit(network string, laddr, raddr *net.UDPAddr) (udpConn, error) {
	c, err := openMeta(network, laddr, raddr)
	if err == nil {
		err = c.(*sockmeta.UDPConn).SetGRO(sockmeta.SegmentsSplit)
	}
	return c, err
}

// newMessages returns messages to be read into, that look as if they had been used.
func newMessages(t testing.TB, n, size, room int) []sockmeta.Message {
	t.Helper()
	// Longer than what comes.
	md := stale(t)
	must(t, md.SetBytes(sockmeta.KeyUser, bytes.Repeat([]byte{0xEE}, 200)))
	ms := make([]sockmeta.Message, n)
	for i := range ms {
		ms[i] = sockmeta.Message{Buf: make([]byte, size), OOB: make([]byte, room), N: 99, NN: 99, Flags: 99,
			Addr: netip.MustParseAddrPort("203.0.113.1:1"), SegmentSize: 99, Metadata: md, Err: errStale}
	}
	return ms
}

var errStale = errors.New("of another datagram")

// TestBatchMetadata has each datagram's own metadata, read by several goroutines from
// one socket, with areas of different lengths.
func TestBatchMetadata(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	p := testutil.Pair(t)
	testutil.EnterCgroup(t)
	attachEchoUDP(t, p)
	const readers, count, most = 3, 2000, 17
	for _, open := range []struct {
		name string
		open openUDP
	}{{"made", openMeta}, {"split", openSplit}} {
		for _, k := range udpKinds(p) {
			t.Run(open.name+" "+k.name, func(t *testing.T) {
				c := k.serve(t, p, open.open).(*sockmeta.UDPConn)
				queueAll(t, c)
				client := k.dial(t, p)
				var mu sync.Mutex
				seen := make(map[uint64]bool)
				credit := make(chan struct{}, 64)
				var wg sync.WaitGroup
				for r := range readers {
					wg.Go(func() {
						ms := newMessages(t, most, 64, 0)
						for {
							n, err := c.ReadBatchMetadata(ms[:1+r*8], 0)
							if errors.Is(err, net.ErrClosed) {
								return
							}
							if err != nil {
								t.Error(err)
								return
							}
							mu.Lock()
							for i := range n {
								id := binary.NativeEndian.Uint64(ms[i].Buf)
								if seen[id] || id >= count {
									t.Errorf("datagram %d came twice", id)
								}
								seen[id] = true
								checkMessage(t, &ms[i], k)
								<-credit
							}
							done := len(seen) == count
							mu.Unlock()
							if done {
								_ = c.Close()
							}
						}
					})
				}
				for id := range uint64(count) {
					select {
					case credit <- struct{}{}:
					case <-time.After(udpPatience):
						t.Error("a datagram was lost")
						_ = c.Close()
					}
					if t.Failed() {
						break
					}
					send(t, client, numbered(id))
				}
				wg.Wait()
				if len(seen) != count {
					t.Errorf("%d of %d datagrams", len(seen), count)
				}
			})
		}
	}
}

// checkMessage checks a numbered datagram.
func checkMessage(t testing.TB, m *sockmeta.Message, k udpKind) {
	t.Helper()
	if m.Err != nil || m.NN != 0 || m.Flags != 0 || m.SegmentSize != 0 {
		t.Errorf("%v, %d bytes of control messages, flags %#x, segments of %d", m.Err, m.NN, m.Flags, m.SegmentSize)
	}
	if m.Addr.Addr().Unmap() != k.client || m.Addr.Port() != clientPort {
		t.Errorf("from %v", m.Addr)
	}
	wantNumbered(t, m.Buf[:m.N], &m.Metadata)
	var fresh sockmeta.Metadata
	b, err := m.Metadata.MarshalBinary()
	must(t, err)
	must(t, fresh.Decode(b))
	if fresh != m.Metadata {
		t.Errorf("there is more in the metadata than %v", fresh)
	}
}

// TestBatchLast has Metadata, after a batch, say that of its last datagram.
func TestBatchLast(t *testing.T) {
	testutil.RequireRoot(t)
	p := testutil.Pair(t)
	testutil.EnterCgroup(t)
	attachEchoUDP(t, p)
	k := udpKinds(p)[0]
	for _, open := range []openUDP{openMeta, openSplit} {
		c, client := k.serve(t, p, open).(*sockmeta.UDPConn), k.dial(t, p)
		for id := range uint64(6) {
			send(t, client, numbered(id))
		}
		waitQueued(t, c, 6)
		plain := make([]ipv4.Message, 3)
		for i := range plain {
			plain[i].Buffers = [][]byte{make([]byte, 64)}
		}
		readBatches(t, c, plain)
		md, err := c.Metadata()
		must(t, err)
		wantNumbered(t, plain[2].Buffers[0], &md)
		ms := newMessages(t, 3, 64, 0)
		if n, err := c.ReadBatchMetadata(ms, 0); n != 3 || err != nil {
			t.Fatal(n, err)
		}
		md, err = c.Metadata()
		must(t, err)
		wantNumbered(t, ms[2].Buf, &md)
		must(t, client.Close())
		must(t, c.Close())
	}
}

// TestBatchOverrun has datagrams whose metadata was lost beside those whose was not.
func TestBatchOverrun(t *testing.T) {
	testutil.RequireRoot(t)
	p := testutil.Pair(t)
	testutil.EnterCgroup(t)
	attachEchoUDP(t, p)
	a, err := bpf.Attach(bpf.Options{SlotsPerCPU: 16})
	must(t, err)
	defer a.Close()
	k := udpKinds(p)[0]
	for _, open := range []openUDP{openMeta, openSplit} {
		c, client := k.serve(t, p, open).(*sockmeta.UDPConn), k.dial(t, p)
		queueAll(t, c)
		count := 2 * int(a.Info().Slots)
		for id := range uint64(count) {
			send(t, client, numbered(id))
		}
		arrived(t, p, k)
		found, lost := 0, 0
		ms := newMessages(t, count, 64, 0)
		for read := 0; read < count; {
			n, err := c.ReadBatchMetadata(ms[read:], 0)
			must(t, err)
			read += n
		}
		for i := range ms {
			m := &ms[i]
			if got := string(m.Buf[:m.N]); got != numbered(uint64(i)) {
				t.Fatalf("payload %d is %q", i, got)
			}
			switch {
			case m.Err == nil:
				found++
				checkMessage(t, m, k)
			case errors.Is(m.Err, sockmeta.ErrOverrun) && sockmeta.IsMetadataError(m.Err):
				lost++
				if m.Metadata != (sockmeta.Metadata{}) {
					t.Errorf("lost, and metadata %v", m.Metadata)
				}
			default:
				t.Error(m.Err)
			}
		}
		if found == 0 || (lost == 0) != native() {
			t.Errorf("%d found, %d lost", found, lost)
		}
		must(t, client.Close())
		must(t, c.Close())
	}
}

// TestBatchQueuedBefore wraps a socket that datagrams wait in already.
func TestBatchQueuedBefore(t *testing.T) {
	testutil.RequireRoot(t)
	p := testutil.Pair(t)
	testutil.EnterCgroup(t)
	attachEchoUDP(t, p)
	k := udpKinds(p)[0]
	for _, gro := range []sockmeta.Segments{sockmeta.SegmentsOff, sockmeta.SegmentsSplit} {
		plain, client := k.serve(t, p, openPlain).(*net.UDPConn), k.dial(t, p)
		send(t, client, numbered(0))
		arrived(t, p, k)
		c := sockmeta.WrapUDP(plain)
		must(t, c.SetGRO(gro))
		send(t, client, numbered(1))
		arrived(t, p, k)
		ms := newMessages(t, 2, 64, 0)
		if n, err := c.ReadBatchMetadata(ms, 0); n != 2 || err != nil {
			t.Fatal(n, err)
		}
		if native() {
			checkMessage(t, &ms[0], k)
		} else if m := &ms[0]; !errors.Is(m.Err, sockmeta.ErrNoMetadata) || m.Metadata != (sockmeta.Metadata{}) || string(m.Buf[:m.N]) != numbered(0) {
			t.Errorf("%q, %v, metadata %v", m.Buf[:m.N], m.Err, m.Metadata)
		}
		checkMessage(t, &ms[1], k)
		must(t, errors.Join(client.Close(), c.Close()))
	}
}

// TestBatchPlain has sockets without metadata, whose cgroup has no programs.
func TestBatchPlain(t *testing.T) {
	testutil.RequireRoot(t)
	p := testutil.Pair(t)
	for _, k := range udpKinds(p) {
		t.Run(k.name, func(t *testing.T) {
			bareCgroup(t)
			plain := k.serve(t, p, openPlain).(*net.UDPConn)
			testutil.EnterCgroup(t)
			c := sockmeta.WrapUDP(plain)
			client := k.dial(t, p)
			for _, gro := range []sockmeta.Segments{sockmeta.SegmentsOff, sockmeta.SegmentsSplit, sockmeta.SegmentsWhole, sockmeta.SegmentsOff} {
				must(t, c.SetGRO(gro))
				send(t, client, numbered(1))
				ms := newMessages(t, 2, 64, 64)
				n, err := c.ReadBatchMetadata(ms, 0)
				if n != 1 || err != nil {
					t.Fatal(n, err)
				}
				m := &ms[0]
				if string(m.Buf[:m.N]) != numbered(1) || m.NN != 0 || m.Flags != 0 || m.SegmentSize != 0 || m.Addr.Port() != clientPort {
					t.Errorf("%v: %+v", gro, m)
				}
				if !errors.Is(m.Err, sockmeta.ErrNotSupported) || m.Metadata != (sockmeta.Metadata{}) {
					t.Errorf("%v: error is %v, metadata %v", gro, m.Err, m.Metadata)
				}
				md := stale(t)
				send(t, client, numbered(2))
				n, from, err := c.ReadMetadata(m.Buf, &md)
				if string(m.Buf[:n]) != numbered(2) || from.Port() != clientPort || !errors.Is(err, sockmeta.ErrNotSupported) || md != (sockmeta.Metadata{}) {
					t.Errorf("%v: %q from %v, %v, metadata %v", gro, m.Buf[:n], from, err, md)
				}
			}
			must(t, client.SetReadDeadline(time.Now().Add(udpPatience)))
			out := []sockmeta.Message{{Buf: []byte("reply"), Metadata: stale(t)}, {Buf: []byte("plain"), Err: errStale}}
			if !k.connected {
				out[0].Addr = client.LocalAddr().(*net.UDPAddr).AddrPort()
				out[1].Addr = out[0].Addr
			}
			n, err := c.WriteBatchMetadata(out, 0)
			if n != 2 || err != nil || !errors.Is(out[0].Err, sockmeta.ErrNotSupported) || out[1].Err != nil {
				t.Errorf("sent %d, %v, %v, %v", n, err, out[0].Err, out[1].Err)
			}
			for _, want := range []string{"reply", "plain"} {
				b := make([]byte, 16)
				if n, err := client.Read(b); string(b[:n]) != want {
					t.Errorf("%q came, %v", b[:n], err)
				}
			}
		})
	}
}

func init() {
	children["batchUnmapped"] = batchUnmapped
	children["batchZones"] = batchZones
}

// TestBatchUnmapped asks the kernel for each record, as processes do that may not map
// the slots.
func TestBatchUnmapped(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	p := testutil.Pair(t)
	testutil.EnterCgroup(t)
	attachEchoUDP(t, p)
	for _, k := range udpKinds(p)[:4] {
		for _, open := range []openUDP{openMeta, openSplit} {
			c, client := k.serve(t, p, open), k.dial(t, p)
			for id := range uint64(batchUnmappedCount) {
				send(t, client, numbered(id))
			}
			arrived(t, p, k)
			f, err := c.File()
			must(t, err)
			testutil.Unprivileged(t, "batchUnmapped", f)
			must(t, errors.Join(f.Close(), client.Close(), c.Close()))
		}
	}
}

const batchUnmappedCount = 40

func batchUnmapped() error {
	fc, err := net.FileConn(testutil.ChildFile(0))
	if err != nil {
		return err
	}
	c := sockmeta.WrapUDP(fc.(*net.UDPConn))
	if err := checkSupport(c, false); err != nil {
		return err
	}
	ms := make([]sockmeta.Message, 8)
	for i := range ms {
		ms[i].Buf, ms[i].OOB = make([]byte, 64), make([]byte, 64)
	}
	read := 0
	for _, split := range []sockmeta.Segments{sockmeta.SegmentsOff, sockmeta.SegmentsSplit} {
		if err := c.SetGRO(split); err != nil {
			return err
		}
		for range batchUnmappedCount / 2 / len(ms) {
			for left := ms; len(left) > 0; {
				n, err := c.ReadBatchMetadata(left, 0)
				if err != nil {
					return err
				}
				left = left[n:]
			}
			for i := range ms {
				id, ok := ms[i].Metadata.Uint64(testprog.KeyID)
				if ms[i].Err != nil || ms[i].NN != 0 || !ok || string(ms[i].Buf[:ms[i].N]) != numbered(id) || id != uint64(read) {
					return fmt.Errorf("datagram %d: %q, %d bytes of control messages, %v, %w", read, ms[i].Buf[:ms[i].N], ms[i].NN, ms[i].Metadata, ms[i].Err)
				}
				read++
			}
		}
	}
	return nil
}

// TestBatchAllocs has none.
func TestBatchAllocs(t *testing.T) {
	testutil.RequireRoot(t)
	if raceDetector {
		t.Skip("the race detector allocates")
	}
	p := testutil.Pair(t)
	testutil.EnterCgroup(t)
	attachEchoUDP(t, p)
	for _, open := range []struct {
		name string
		open openUDP
	}{{"mapped", openMeta}, {"split", openSplit}} {
		for _, k := range udpKinds(p) {
			t.Run(open.name+" "+k.name, func(t *testing.T) {
				c, client := k.serve(t, p, open.open).(*sockmeta.UDPConn), k.dial(t, p)
				plain := []ipv4.Message{{Buffers: [][]byte{make([]byte, 32), make([]byte, 32)}, OOB: make([]byte, 64)}, {}}
				ms := newMessages(t, 4, 64, 64)
				for name, read := range map[string]func() error{
					"ReadBatch":         func() error { _, err := c.ReadBatch(plain, 0); return err },
					"ReadBatchMetadata": func() error { _, err := c.ReadBatchMetadata(ms, 0); return err },
				} {
					if n := allocsPerDatagram(t, client, read); n != 0 {
						t.Errorf("%s: %v allocations", name, n)
					}
				}
			})
		}
	}
}

// TestBatchSend has metadata for some datagrams of a batch.
func TestBatchSend(t *testing.T) {
	testutil.Leaks(t)
	lab := newTxLab(t, bpf.Policy{MarkMask: 0xff, MaxPriority: 6, LaunchTimes: true})
	var with, without uint64
	for _, tt := range lab.kinds() {
		t.Run(tt.name, func(t *testing.T) {
			var raddr *net.UDPAddr
			to := tt.to
			if tt.connected {
				raddr, to = net.UDPAddrFromAddrPort(tt.to), netip.AddrPort{}
			}
			c := lab.udp(t, tt.network, raddr)
			var ms []sockmeta.Message
			var plain []ipv4.Message
			for i := range 70 {
				m := sockmeta.Message{Addr: to, N: 99, NN: 99, Err: errStale}
				p := ipv4.Message{}
				if to.IsValid() {
					p.Addr = net.UDPAddrFromAddrPort(to)
				}
				if i%3 == 0 {
					m.Buf = lab.plain()
					without += 2
				} else {
					b, md := lab.datagram(t)
					m.Buf, m.Metadata = b, *md
					p.OOB = md.AppendCmsg(nil)
					if i%3 == 2 {
						// In a control message, beside another.
						m.Metadata.Reset()
						m.OOB = md.AppendCmsg(hopsMessage(net.UDPAddrFromAddrPort(tt.to)))
					}
					with += 2
				}
				p.Buffers = [][]byte{m.Buf[:3], m.Buf[3:]}
				ms, plain = append(ms, m), append(plain, p)
			}
			n, err := c.WriteBatchMetadata(ms, 0)
			if n != len(ms) || err != nil {
				t.Fatal(n, err)
			}
			for i := range ms {
				if m := &ms[i]; m.N != len(m.Buf) || m.NN != len(m.OOB) || m.Err != nil {
					t.Errorf("message %d: %d, %d, %v", i, m.N, m.NN, m.Err)
				}
				lab.arrives(t, ms[i].Buf)
			}
			n, err = c.WriteBatch(plain, 0)
			if n != len(plain) || err != nil {
				t.Fatal(n, err)
			}
			for i := range plain {
				if m := &plain[i]; m.N != len(ms[i].Buf) || m.NN != len(m.OOB) {
					t.Errorf("message %d: %d, %d", i, m.N, m.NN)
				}
				lab.arrives(t, ms[i].Buf)
			}
			lab.expect(t, with, without)
		})
	}

	// What is refused is told of the datagram that asked for it.
	c := lab.udp(t, "udp4", nil)
	ms := make([]sockmeta.Message, 3)
	for i := range ms {
		b, md := lab.datagram(t)
		ms[i] = sockmeta.Message{Buf: b, Metadata: *md, Addr: lab.to4(), Err: errStale}
		with++
	}
	ms[0].Metadata.SetMark(1)
	ms[1].Metadata.SetMark(0x100)
	if n, err := c.WriteBatchMetadata(ms, 0); n != 3 || err != nil {
		t.Fatal(n, err)
	}
	for i := range ms {
		lab.arrives(t, ms[i].Buf)
		if errors.Is(ms[i].Err, sockmeta.ErrRefused) != (i == 1) || i != 1 && ms[i].Err != nil {
			t.Errorf("message %d: %v", i, ms[i].Err)
		}
	}
	// In WriteBatch it is the call's error.
	b, md := lab.datagram(t)
	md.SetMark(0x100)
	msg := ipv4.Message{Buffers: [][]byte{b}, OOB: md.AppendCmsg(nil), Addr: net.UDPAddrFromAddrPort(lab.to4())}
	if n, err := c.WriteBatch([]ipv4.Message{msg, msg}, 0); n != 2 || !errors.Is(err, sockmeta.ErrRefused) {
		t.Errorf("%d, %v", n, err)
	}
	lab.arrives(t, b)
	lab.arrives(t, b)
	with += 2
	lab.expect(t, with, without)

	// Partial sends: the slots of the others are free again, and Err is as it was.
	bad := sockmeta.Message{Buf: make([]byte, 1<<17), Addr: lab.to4(), Err: errStale}
	must(t, bad.Metadata.SetUint64(testprog.KeyID, 1))
	for range 5000 {
		if n, err := c.WriteBatchMetadata([]sockmeta.Message{bad, ms[0], ms[0]}, 0); n != 0 || !errors.Is(err, unix.EMSGSIZE) {
			t.Fatal(n, err)
		}
	}
	part := []sockmeta.Message{ms[0], bad, ms[2]}
	part[0].Err, part[2].Err = errStale, errStale
	if n, err := c.WriteBatchMetadata(part, 0); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if part[0].Err != nil || part[1].Err != errStale || part[2].Err != errStale {
		t.Errorf("%v, %v, %v", part[0].Err, part[1].Err, part[2].Err)
	}
	lab.arrives(t, ms[0].Buf)
	lab.expect(t, with+1, without)
}

// TestBatchSendTrains has one record for all segments of a train.
func TestBatchSendTrains(t *testing.T) {
	lab := newTxLab(t, bpf.DefaultPolicy())
	c := lab.udp(t, "udp4", nil)
	const segment, segments = 100, 20
	var ms []sockmeta.Message
	for range 3 {
		b, md := lab.datagram(t)
		b = append(b, make([]byte, segment*segments-len(b)-1)...)
		ms = append(ms, sockmeta.Message{Buf: b, Metadata: *md, Addr: lab.to4(), SegmentSize: segment})
	}
	// One of its own control messages, and one that is no train.
	ms[1].OOB = hopsMessage(net.UDPAddrFromAddrPort(lab.to4()))
	b, md := lab.datagram(t)
	ms = append(ms, sockmeta.Message{Buf: b, Metadata: *md, Addr: lab.to4(), SegmentSize: 1<<16 + 4})
	// And one without metadata.
	ms = append(ms, sockmeta.Message{Buf: append(lab.plain(), make([]byte, 300)...), Addr: lab.to4(), SegmentSize: segment})
	if n, err := c.WriteBatchMetadata(ms, 0); n != len(ms) || err != nil {
		t.Fatal(n, err)
	}
	for i := range ms {
		if ms[i].Err != nil || ms[i].N != len(ms[i].Buf) {
			t.Errorf("message %d: %d, %v", i, ms[i].N, ms[i].Err)
		}
		for b := range slices.Chunk(ms[i].Buf, min(ms[i].SegmentSize, len(ms[i].Buf))) {
			lab.arrives(t, b)
		}
	}
	lab.expect(t, 4, 1)
	if got, err := lab.attachment.Counts(); err != nil || got != (bpf.Counts{Sent: 4}) {
		t.Errorf("%+v, %v", got, err)
	}

	ms[0].SegmentSize = 1
	if n, err := c.WriteBatchMetadata(ms[:1], 0); n != 0 || !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("too many segments: %d, %v", n, err)
	}
}

// TestBatchSendAllocs has none.
func TestBatchSendAllocs(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates")
	}
	lab := newTxLab(t, bpf.DefaultPolicy())
	c := lab.udp(t, "udp4", nil)
	b, md := lab.datagram(t)
	ms := []sockmeta.Message{{Buf: b, Metadata: *md, Addr: lab.to4()}, {Buf: b, Addr: lab.to4(), OOB: md.AppendCmsg(nil)}, {Buf: b, Addr: lab.to4()}}
	plain := []ipv4.Message{{Buffers: [][]byte{b}, Addr: net.UDPAddrFromAddrPort(lab.to4())}, {Buffers: [][]byte{b}, Addr: net.UDPAddrFromAddrPort(lab.to4()), OOB: md.AppendCmsg(nil)}}
	for name, send := range map[string]func() error{
		"WriteBatch":         func() error { _, err := c.WriteBatch(plain, 0); return err },
		"WriteBatchMetadata": func() error { _, err := c.WriteBatchMetadata(ms, 0); return err },
	} {
		if n := testing.AllocsPerRun(100, func() { must(t, send()) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// TestBatchZones has the same zones as package net, in both directions, in a process
// that has seen no other host's interfaces.
func TestBatchZones(t *testing.T) {
	testutil.RequireRoot(t)
	p := testutil.Pair(t)
	bareCgroup(t)
	out, err := testutil.RunChild(t, "batchZones", testutil.ChildOptions{Netns: p.Server})
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func batchZones() error {
	var to *net.UDPAddr
	interfaces, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil {
			return err
		}
		for _, a := range addrs {
			if ip, _, err := net.ParseCIDR(a.String()); err == nil && ip.IsLinkLocalUnicast() && ip.To4() == nil {
				to = &net.UDPAddr{IP: ip, Zone: i.Name}
			}
		}
	}
	if to == nil {
		return errors.New("there is no link-local address")
	}
	c, err := sockmeta.ListenUDP("udp6", nil)
	if err != nil {
		return err
	}
	if err := c.SetDeadline(time.Now().Add(udpPatience)); err != nil {
		return err
	}
	to.Port = c.LocalAddr().(*net.UDPAddr).Port
	b := []byte("payload")
	plain := []ipv4.Message{{Buffers: [][]byte{b}, Addr: to}}
	ms := []sockmeta.Message{{Buf: b, Addr: to.AddrPort()}}
	for range 3 {
		if _, err := c.WriteBatch(plain, 0); err != nil {
			return err
		}
		if _, err := c.WriteBatchMetadata(ms, 0); err != nil {
			return err
		}
		if _, err := c.WriteTo(b, to); err != nil {
			return err
		}
		if _, err := c.ReadBatch(plain, 0); err != nil {
			return err
		}
		if _, err := c.ReadBatchMetadata(ms, 0); err != nil {
			return err
		}
		_, from, err := c.ReadFrom(b)
		if err != nil {
			return err
		}
		if want := describeAddr(to); describeAddr(from) != want || describeAddr(plain[0].Addr) != want || ms[0].Addr != to.AddrPort() {
			return fmt.Errorf("from %v, %v and %v, not %v", from, plain[0].Addr, ms[0].Addr, to)
		}
	}
	return nil
}

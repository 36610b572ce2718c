// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

const groSegment = 100

// newLoopback returns a host that sends to itself: nothing on the way cuts a train into
// its segments, and its mark arrives.
func newLoopback(t *testing.T) *netlab.Pair {
	t.Helper()
	ns := testutil.Namespace(t)
	ip4, ip6 := netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()
	testutil.EnterCgroup(t)
	return &netlab.Pair{Client: ns, Server: ns, ClientAddr4: ip4, ServerAddr4: ip4, ClientAddr6: ip6, ServerAddr6: ip6}
}

// sendTrain sends payloads that the receiver gets as one, where it has UDP_GRO: all
// of one size, but for the last, which may be shorter. Their mark is id.
func sendTrain(t testing.TB, c *net.UDPConn, id uint32, payloads ...string) {
	t.Helper()
	oob := cmsg.Append(nil, unix.SOL_SOCKET, unix.SO_MARK, binary.NativeEndian.AppendUint32(nil, id))
	if len(payloads) > 1 {
		oob = cmsg.Append(oob, unix.SOL_UDP, unix.UDP_SEGMENT, binary.NativeEndian.AppendUint16(nil, uint16(len(payloads[0]))))
	}
	if _, _, err := c.WriteMsgUDPAddrPort([]byte(strings.Join(payloads, "")), oob, netip.AddrPort{}); err != nil {
		t.Fatal(err)
	}
}

// segmentsOf returns the segments of a train with an id, the last of which is shorter.
func segmentsOf(id uint32, n int) (payloads []string) {
	for i := range n {
		b := fmt.Appendf(nil, "train %d segment %d", id, i)
		size := groSegment
		if i == n-1 {
			size = 37
		}
		payloads = append(payloads, string(append(b, make([]byte, size-len(b))...)))
	}
	return payloads
}

// groReads are the ways to read a datagram, its metadata included where that is
// theirs.
var groReads = func() (reads []groRead) {
	for _, r := range udpReads {
		reads = append(reads, groRead{r.name, func(t testing.TB, c *sockmeta.UDPConn, b []byte) (int, *sockmeta.Metadata) {
			n, rest, err := r.read(c, b)
			must(t, err)
			if rest != "" && !strings.Contains(rest, fmt.Sprint(clientPort)) || strings.Contains(rest, "oobn") && !strings.Contains(rest, "oobn 0, flags 0x0") {
				t.Errorf("%s: %s", r.name, rest)
			}
			return n, nil
		}})
	}
	return append(reads,
		groRead{"ReadMetadata", func(t testing.TB, c *sockmeta.UDPConn, b []byte) (int, *sockmeta.Metadata) {
			md := stale(t)
			n, from, err := c.ReadMetadata(b, &md)
			must(t, err)
			if from.Port() != clientPort {
				t.Errorf("from %v", from)
			}
			return n, &md
		}},
		groRead{"ReadBatch", func(t testing.TB, c *sockmeta.UDPConn, b []byte) (int, *sockmeta.Metadata) {
			ms := []ipv4.Message{{Buffers: [][]byte{b[:5], b[5:]}, OOB: make([]byte, 64)}}
			n, err := c.ReadBatch(ms, 0)
			must(t, err)
			if n != 1 || ms[0].NN != 0 || ms[0].Flags != 0 || ms[0].Addr.(*net.UDPAddr).Port != clientPort {
				t.Errorf("%d messages, %+v", n, ms[0])
			}
			return ms[0].N, nil
		}},
		groRead{"ReadBatchMetadata", func(t testing.TB, c *sockmeta.UDPConn, b []byte) (int, *sockmeta.Metadata) {
			ms := newMessages(t, 1, 0, 64)
			ms[0].Buf = b
			n, err := c.ReadBatchMetadata(ms, 0)
			must(t, err)
			if m := &ms[0]; n != 1 || m.Err != nil || m.NN != 0 || m.Flags != 0 || m.SegmentSize != 0 || m.Addr.Port() != clientPort {
				t.Errorf("%d messages, %+v", n, m)
			}
			return ms[0].N, &ms[0].Metadata
		}})
}()

type groRead struct {
	name string
	read func(t testing.TB, c *sockmeta.UDPConn, b []byte) (int, *sockmeta.Metadata)
}

// TestGROSplit reads the segments of a train each by another method: each has the
// train's record, its source, and no control message that nobody asked for.
func TestGROSplit(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	p := newLoopback(t)
	for _, k := range udpKinds(p) {
		t.Run(k.name, func(t *testing.T) {
			c, client := k.serve(t, p, openSplit).(*sockmeta.UDPConn), k.dial(t, p)
			b := make([]byte, 128)
			for start := range groReads {
				id := uint32(start) + 1
				want := segmentsOf(id, 2*len(groReads))
				sendTrain(t, client, id, want...)
				for i := range want {
					r := groReads[(start+i)%len(groReads)]
					n, md := r.read(t, c, b)
					if got := string(b[:n]); got != want[i] {
						t.Fatalf("%s: segment %d is %q", r.name, i, got)
					}
					later, err := c.Metadata()
					must(t, err)
					if md == nil {
						md = &later
					} else if *md != later {
						t.Errorf("%s: metadata is %v, Metadata says %v", r.name, md, later)
					}
					wantTrain(t, md, id, true)
				}
			}
		})
	}
}

// wantTrain checks the metadata of a segment, or of a train of several.
func wantTrain(t testing.TB, md *sockmeta.Metadata, id uint32, merged bool) {
	t.Helper()
	if mark, ok := md.Mark(); !ok || mark != id {
		t.Errorf("metadata is of %d, %v, the train is %d", mark, ok, id)
	}
	if md.Flags().Has(cmsg.FlagAggregate) != merged {
		t.Errorf("flags are %v", md.Flags())
	}
	if len(md.Raw()) != 0 || strings.Contains(md.String(), "4711") {
		t.Errorf("metadata is %v", md)
	}
}

// TestGROBatch splits trains of all lengths into batches of all lengths.
func TestGROBatch(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	p := newLoopback(t)
	for _, k := range udpKinds(p)[:4] {
		t.Run(k.name, func(t *testing.T) {
			c, client := k.serve(t, p, openSplit).(*sockmeta.UDPConn), k.dial(t, p)
			var want []string
			var ids []uint32
			length := func(id uint32) int { return 1 + int(id)*7%40 }
			for id := range uint32(30) {
				train := segmentsOf(id, length(id))
				sendTrain(t, client, id, train...)
				want = append(want, train...)
				ids = append(ids, slices.Repeat([]uint32{id}, len(train))...)
			}
			arrived(t, p, k)
			ms := newMessages(t, 70, 128, 0)
			plain := make([]ipv4.Message, 70)
			for i := range plain {
				plain[i] = ipv4.Message{Buffers: [][]byte{make([]byte, 128)}, OOB: make([]byte, 64)}
			}
			for read, calls := 0, 0; read < len(want); calls++ {
				size := 1 + calls*13%70
				if calls%2 == 0 {
					n, err := c.ReadBatch(plain[:size], 0)
					must(t, err)
					for i := range n {
						if m := &plain[i]; string(m.Buffers[0][:m.N]) != want[read+i] || m.NN != 0 || m.Flags != 0 {
							t.Fatalf("segment %d is %q, %d bytes of control messages, flags %#x", read+i, m.Buffers[0][:m.N], m.NN, m.Flags)
						}
					}
					read += n
					continue
				}
				n, err := c.ReadBatchMetadata(ms[:size], 0)
				must(t, err)
				for i := range n {
					m := &ms[i]
					if got := string(m.Buf[:m.N]); got != want[read+i] {
						t.Fatalf("segment %d is %q", read+i, got)
					}
					if m.Err != nil || m.NN != 0 || m.Flags != 0 || m.SegmentSize != 0 || m.Addr.Port() != clientPort {
						t.Errorf("segment %d: %+v", read+i, m)
					}
					id := ids[read+i]
					wantTrain(t, &m.Metadata, id, length(id) > 1)
				}
				read += n
			}
		})
	}
}

// TestGROWhole hands trains on, with the size of their segments.
func TestGROWhole(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	p := newLoopback(t)
	for _, k := range udpKinds(p) {
		t.Run(k.name, func(t *testing.T) {
			c, client := k.serve(t, p, openMeta).(*sockmeta.UDPConn), k.dial(t, p)
			must(t, c.SetGRO(sockmeta.SegmentsWhole))
			for _, room := range []int{0, 64, cmsg.Space(4)} {
				train := segmentsOf(uint32(room), 20)
				whole := strings.Join(train, "")
				sendTrain(t, client, uint32(room), train...)
				sendTrain(t, client, 1, train[19])
				arrived(t, p, k)
				ms := newMessages(t, 3, 1<<16, room)
				n, err := c.ReadBatchMetadata(ms, 0)
				if n != 2 || err != nil {
					t.Fatal(n, err)
				}
				m := &ms[0]
				if string(m.Buf[:m.N]) != whole || m.SegmentSize != groSegment || m.Flags != 0 || m.Err != nil {
					t.Errorf("%d bytes, segments of %d, flags %#x, %v", m.N, m.SegmentSize, m.Flags, m.Err)
				}
				wantTrain(t, &m.Metadata, uint32(room), true)
				size, ok := cmsg.Find(m.OOB[:m.NN], unix.SOL_UDP, unix.UDP_GRO)
				if ok != (room > 0) || ok && binary.NativeEndian.Uint32(size) != groSegment {
					t.Errorf("with %d bytes: control message %x, %v", room, size, ok)
				}
				if room > 0 && m.NN != cmsg.Space(4) {
					t.Errorf("%d bytes of control messages", m.NN)
				}
				wantTrain(t, &ms[1].Metadata, 1, false)
				if m := &ms[1]; string(m.Buf[:m.N]) != train[19] || m.SegmentSize != 0 || m.NN != 0 || m.Flags != 0 {
					t.Errorf("single: %d bytes, segments of %d", m.N, m.SegmentSize)
				}
			}
			// As the kernel does: with a control message, and without room for it.
			train := segmentsOf(1, 5)
			for _, room := range []int{64, 0} {
				sendTrain(t, client, 3, train...)
				ms := []ipv4.Message{{Buffers: [][]byte{make([]byte, 1<<16)}, OOB: make([]byte, room)}}
				_, err := c.ReadBatch(ms, 0)
				must(t, err)
				m := &ms[0]
				if m.N != 4*groSegment+37 || (m.NN == cmsg.Space(4)) != (room > 0) || (m.Flags == unix.MSG_CTRUNC) != (room == 0) {
					t.Errorf("%d bytes, %d of control messages, flags %#x", m.N, m.NN, m.Flags)
				}
			}
			// What it reads can be sent as it is.
			sendTrain(t, client, 3, train...)
			ms := newMessages(t, 1, 1<<16, 0)
			_, err := c.ReadBatchMetadata(ms, 0)
			must(t, err)
			ms[0].Buf = ms[0].Buf[:ms[0].N]
			if k.connected {
				ms[0].Addr = netip.AddrPort{}
			}
			ms[0].Metadata.ClearFields()
			if n, err := c.WriteBatchMetadata(ms, 0); n != 1 || err != nil || ms[0].Err != nil {
				t.Fatal(n, err, ms[0].Err)
			}
			must(t, client.SetReadDeadline(time.Now().Add(udpPatience)))
			for i := range train {
				b := make([]byte, 1<<16)
				if n, err := client.Read(b); string(b[:n]) != train[i] {
					t.Errorf("%q came back, %v", b[:n], err)
				}
			}
		})
	}
}

// TestGROOwn has an application that sets UDP_GRO itself get what the kernel gives.
func TestGROOwn(t *testing.T) {
	testutil.RequireRoot(t)
	p := newLoopback(t)
	k := udpKinds(p)[0]
	c, client := k.serve(t, p, openMeta).(*sockmeta.UDPConn), k.dial(t, p)
	withFD(t, c, func(fd int) error { return unix.SetsockoptInt(fd, solUDP, udpGRO, 1) })
	train := segmentsOf(1, 9)
	sendTrain(t, client, 3, train...)
	b, oob := make([]byte, 1<<16), make([]byte, cmsg.Space(4))
	n, oobn, flags, _, err := c.ReadMsgUDPAddrPort(b, oob)
	must(t, err)
	if size, ok := cmsg.Find(oob[:oobn], solUDP, udpGRO); string(b[:n]) != strings.Join(train, "") || flags != 0 || !ok || binary.NativeEndian.Uint32(size) != groSegment {
		t.Errorf("%d bytes, flags %#x, %x", n, flags, oob[:oobn])
	}
}

// TestGROControlMessages has each segment bring what the application asked for.
func TestGROControlMessages(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	p := newLoopback(t)
	keepStamping(t, p.Server)
	step := 9
	if testing.Short() {
		step = 61
	}
	for _, k := range udpKinds(p)[:4] {
		for _, set := range []optionSet{
			{name: "nothing"},
			{name: "packet and times", before: append(packetOptions(k), timeOptions()["TIMESTAMPNS and _NEW"]...)},
		} {
			t.Run(k.name+" "+set.name, func(t *testing.T) {
				plain, meta := newTwins(t, p, k, set)
				plain.overflow(t)
				meta.overflow(t)
				c := meta.udpConn.(*sockmeta.UDPConn)
				must(t, c.SetGRO(sockmeta.SegmentsSplit))
				drain(t, c)
				train := segmentsOf(7, 4)
				for size := 0; size <= 300 && !t.Failed(); size += step {
					want, wantn, wantFlags := plain.exchange(t, "payload", size)
					want = withoutTimes(t, want[:wantn])
					sendTrain(t, meta.client, 0, train...)
					for i, by := range []udpConn{c, byReadBatch{c}, byReadBatchMetadata{c}, c} {
						b, oob := make([]byte, 128), bytes.Repeat([]byte{oobFill}, size)
						n, oobn, flags, _, err := by.ReadMsgUDPAddrPort(b, oob)
						must(t, err)
						if string(b[:n]) != train[i] {
							t.Fatalf("segment %d is %q", i, b[:n])
						}
						got := withoutTimes(t, oob[:oobn])
						if flags != wantFlags || !bytes.Equal(got, want) {
							t.Fatalf("%T, segment %d with %d bytes: flags %#x, %x\nplain: flags %#x, %x", by, i, size, flags, got, wantFlags, want)
						}
					}
				}
			})
		}
	}
}

// drain reads all that waits.
func drain(t testing.TB, c *sockmeta.UDPConn) {
	t.Helper()
	ms := newMessages(t, 64, 16, 0)
	for {
		_, err := c.ReadBatchMetadata(ms, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			return
		}
		must(t, err)
	}
}

// TestGROTruncate has small buffers cut the segment that they are for, and no other.
func TestGROTruncate(t *testing.T) {
	testutil.RequireRoot(t)
	p := newLoopback(t)
	k := udpKinds(p)[0]
	c, client := k.serve(t, p, openSplit).(*sockmeta.UDPConn), k.dial(t, p)
	train := segmentsOf(3, 9)
	sendTrain(t, client, 3, train...)
	b := make([]byte, 20)
	n, _, flags, _, err := c.ReadMsgUDPAddrPort(b, nil)
	if string(b[:n]) != train[0][:20] || flags != unix.MSG_TRUNC || err != nil {
		t.Errorf("%q, flags %#x, %v", b[:n], flags, err)
	}
	if n, err := c.Read(b); string(b[:n]) != train[1][:20] || err != nil {
		t.Errorf("%q, %v", b[:n], err)
	}
	if n, _, err := c.ReadFrom(nil); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := c.Read(nil); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	ms := newMessages(t, 2, 20, 0)
	n, err = c.ReadBatchMetadata(ms, unix.MSG_TRUNC)
	if n != 2 || err != nil || ms[0].N != groSegment || ms[0].Flags != unix.MSG_TRUNC || string(ms[1].Buf) != train[4][:20] {
		t.Errorf("%d, %v, %+v", n, err, ms)
	}
	plain := []ipv4.Message{{Buffers: [][]byte{make([]byte, 3), {}, make([]byte, 4)}}, {}}
	n, err = c.ReadBatch(plain, 0)
	if n != 2 || err != nil || plain[0].N != 7 || plain[0].Flags != unix.MSG_TRUNC || string(plain[0].Buffers[2]) != train[5][3:7] || plain[1].N != 0 || plain[1].Flags != unix.MSG_TRUNC {
		t.Errorf("%d, %v, %+v", n, err, plain)
	}
	b = make([]byte, 128)
	for i := 7; i < 9; i++ {
		if n, err := c.Read(b); string(b[:n]) != train[i] || err != nil {
			t.Errorf("segment %d: %q, %v", i, b[:n], err)
		}
	}
}

// TestGROLeft has deadlines and Close come before segments that wait in the
// connection, MSG_PEEK leave them, and turning GRO off keep them.
func TestGROLeft(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	p := newLoopback(t)
	k := udpKinds(p)[0]
	c, client := k.serve(t, p, openSplit).(*sockmeta.UDPConn), k.dial(t, p)
	train := segmentsOf(3, 12)
	sendTrain(t, client, 3, train...)
	b := make([]byte, 128)
	next := 0
	read := func() {
		t.Helper()
		n, err := c.Read(b)
		must(t, err)
		if string(b[:n]) != train[next] {
			t.Fatalf("segment %d is %q", next, b[:n])
		}
		next++
	}
	read()
	for _, r := range []func() error{
		func() error { _, err := c.Read(b); return err },
		func() error { _, _, err := c.ReadMetadata(b, new(sockmeta.Metadata)); return err },
		func() error { _, err := c.ReadBatchMetadata(newMessages(t, 2, 128, 0), 0); return err },
	} {
		must(t, c.SetReadDeadline(time.Now().Add(-time.Second)))
		if err := r(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("after the deadline: %v", err)
		}
		must(t, c.SetReadDeadline(time.Now().Add(udpPatience)))
		read()
	}
	for range 2 {
		ms := newMessages(t, 3, 128, 0)
		n, err := c.ReadBatchMetadata(ms, unix.MSG_PEEK)
		if n != 1 || err != nil || string(ms[0].Buf[:ms[0].N]) != train[next] {
			t.Fatalf("peeked %d, %v, %q", n, err, ms[0].Buf[:ms[0].N])
		}
		wantTrain(t, &ms[0].Metadata, 3, true)
	}
	read()
	for _, mode := range []sockmeta.Segments{sockmeta.SegmentsOff, sockmeta.SegmentsWhole, sockmeta.SegmentsSplit, sockmeta.SegmentsWhole} {
		must(t, c.SetGRO(mode))
		read()
	}
	for next < len(train) {
		read()
	}
	sendTrain(t, client, 3, train...)
	big := make([]byte, 1<<16)
	if n, err := c.Read(big); string(big[:n]) != strings.Join(train, "") || err != nil {
		t.Errorf("whole: %d bytes, %v", n, err)
	}
	if err := c.SetGRO(sockmeta.Segments(9)); !errors.Is(err, unix.EINVAL) {
		t.Errorf("mode 9: %v", err)
	}
	must(t, c.SetGRO(sockmeta.SegmentsSplit))
	sendTrain(t, client, 3, train...)
	next = 0
	read()
	must(t, c.Close())
	for _, r := range groClosed(c) {
		if err := r(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed: %v", err)
		}
	}
}

func groClosed(c *sockmeta.UDPConn) []func() error {
	b := make([]byte, 128)
	return []func() error{
		func() error { _, err := c.Read(b); return err },
		func() error { _, _, err := c.ReadFrom(b); return err },
		func() error { _, _, _, _, err := c.ReadMsgUDP(b, nil); return err },
		func() error { _, _, err := c.ReadMetadata(b, new(sockmeta.Metadata)); return err },
		func() error { _, err := c.ReadBatch([]ipv4.Message{{Buffers: [][]byte{b}}}, 0); return err },
		func() error { _, err := c.ReadBatchMetadata([]sockmeta.Message{{Buf: b}}, 0); return err },
		func() error { return c.SetGRO(sockmeta.SegmentsSplit) },
	}
}

// TestGROParity runs the scripts that compare with a plain socket. Errors name the
// network as addresses do, "udp".
func TestGROParity(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	for _, script := range udpScripts {
		t.Run(script.name, func(t *testing.T) {
			p := newLoopback(t)
			for _, k := range udpKinds(p) {
				t.Run(k.name, func(t *testing.T) {
					run := func(open openUDP) (tr transcript) {
						c := k.serve(t, p, open)
						client := k.dial(t, p)
						defer client.Close()
						defer c.Close()
						script.run(t, &tr, c, client)
						for i := range tr {
							tr[i] = strings.NewReplacer(": -1, oobn", ": 0, oobn", `"udp4"`, `"udp"`, `"udp6"`, `"udp"`, " udp4 ", " udp ", " udp6 ", " udp ").Replace(tr[i])
						}
						return tr
					}
					run(openSplit).compare(t, run(openPlain))
				})
			}
		})
	}
}

// TestGROConcurrent has several readers of one socket, of different kinds, lose and
// repeat nothing.
func TestGROConcurrent(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	p := newLoopback(t)
	const trains, length = 300, 23
	k := udpKinds(p)[0]
	c, client := k.serve(t, p, openSplit).(*sockmeta.UDPConn), k.dial(t, p)
	var mu sync.Mutex
	seen := make(map[string]bool)
	arrivedAll := make(chan struct{})
	take := func(payload string, md *sockmeta.Metadata) {
		mu.Lock()
		defer mu.Unlock()
		if seen[payload] {
			t.Errorf("%q came twice", payload)
		}
		seen[payload] = true
		if md != nil {
			id, err := strconv.Atoi(strings.Fields(payload)[1])
			must(t, err)
			wantTrain(t, md, uint32(id), true)
		}
		if len(seen)%(length*8) == 0 {
			arrivedAll <- struct{}{}
		}
	}
	var wg sync.WaitGroup
	reader := func(read func() error) {
		wg.Go(func() {
			for {
				if err := read(); errors.Is(err, net.ErrClosed) {
					return
				} else if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	single, metadata := make([]byte, 128), make([]byte, 128)
	reader(func() error {
		n, err := c.Read(single)
		if err == nil {
			take(string(single[:n]), nil)
		}
		return err
	})
	reader(func() error {
		var md sockmeta.Metadata
		n, _, err := c.ReadMetadata(metadata, &md)
		if err == nil {
			take(string(metadata[:n]), &md)
		}
		return err
	})
	for _, size := range []int{3, 40} {
		ms := newMessages(t, size, 128, 0)
		reader(func() error {
			n, err := c.ReadBatchMetadata(ms, 0)
			for i := range n {
				if ms[i].Err != nil {
					t.Error(ms[i].Err)
				}
				take(string(ms[i].Buf[:ms[i].N]), &ms[i].Metadata)
			}
			return err
		})
	}
	for id := range uint32(trains / 8 * 8) {
		sendTrain(t, client, id, segmentsOf(id, length)...)
		if id%8 == 7 {
			select {
			case <-arrivedAll:
			case <-time.After(udpPatience):
				t.Errorf("of %d trains %d segments came", id+1, len(seen))
				_ = c.Close()
				wg.Wait()
				return
			}
		}
	}
	must(t, c.Close())
	wg.Wait()
}

// TestGROAllocs has none.
func TestGROAllocs(t *testing.T) {
	testutil.RequireRoot(t)
	if raceDetector {
		t.Skip("the race detector allocates")
	}
	p := newLoopback(t)
	for _, k := range udpKinds(p)[:4] {
		for _, mode := range []sockmeta.Segments{sockmeta.SegmentsSplit, sockmeta.SegmentsWhole} {
			c, client := k.serve(t, p, openMeta).(*sockmeta.UDPConn), k.dial(t, p)
			must(t, c.SetGRO(mode))
			train := []byte(strings.Join(segmentsOf(1, 20), ""))
			oob := cmsg.Append(nil, unix.SOL_UDP, unix.UDP_SEGMENT, binary.NativeEndian.AppendUint16(nil, groSegment))
			ms := newMessages(t, 8, 1<<16, 0)
			var md sockmeta.Metadata
			n := testing.AllocsPerRun(50, func() {
				_, _, err := client.WriteMsgUDPAddrPort(train, oob, netip.AddrPort{})
				must(t, err)
				if mode == sockmeta.SegmentsWhole {
					_, err = c.ReadBatchMetadata(ms, 0)
					must(t, err)
					return
				}
				// They may come in several pieces.
				for left := 18; left > 0; {
					n, err := c.ReadBatchMetadata(ms[:min(left, len(ms))], 0)
					must(t, err)
					left -= n
				}
				_, _, err = c.ReadMetadata(ms[0].Buf, &md)
				must(t, err)
				_, err = c.Read(ms[0].Buf)
				must(t, err)
			})
			if n != 0 {
				t.Errorf("%s, %v: %v allocations", k.name, mode, n)
			}
			must(t, errors.Join(c.Close(), client.Close()))
		}
	}
}

// TestGROConfig opts in by the configuration.
func TestGROConfig(t *testing.T) {
	testutil.RequireRoot(t)
	p := newLoopback(t)
	a, err := bpf.Attach(bpf.Options{})
	must(t, err)
	defer a.Close()
	isOn := func(c *sockmeta.UDPConn) (on int) {
		withFD(t, c, func(fd int) (err error) {
			on, err = unix.GetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO)
			if err == unix.ENOPROTOOPT {
				t.Skip("the kernel does not tell whether UDP_GRO is on")
			}
			return err
		})
		return on
	}
	conns := make(map[*sockmeta.UDPConn]sockmeta.Segments)
	must(t, p.Server.Do(func() error {
		for _, mode := range []sockmeta.Segments{sockmeta.SegmentsOff, sockmeta.SegmentsSplit, sockmeta.SegmentsWhole} {
			lc := sockmeta.ListenConfig{GRO: mode}
			pc, err := lc.ListenPacket(t.Context(), "udp4", "127.0.0.1:0")
			if err != nil {
				return err
			}
			t.Cleanup(func() { _ = pc.Close() })
			d := sockmeta.Dialer{GRO: mode}
			dc, err := d.Dial("udp4", pc.LocalAddr().String())
			if err != nil {
				return err
			}
			t.Cleanup(func() { _ = dc.Close() })
			typed, err := d.DialUDP(t.Context(), "udp4", netip.AddrPort{}, pc.LocalAddr().(*net.UDPAddr).AddrPort())
			if err != nil {
				return err
			}
			t.Cleanup(func() { _ = typed.Close() })
			conns[pc.(*sockmeta.UDPConn)], conns[dc.(*sockmeta.UDPConn)], conns[typed] = mode, mode, mode
			l, err := lc.Listen(t.Context(), "tcp4", "127.0.0.1:0")
			if err != nil {
				return err
			}
			defer l.Close()
		}
		return nil
	}))
	for c, mode := range conns {
		if want := mode != sockmeta.SegmentsOff; (isOn(c) != 0) != want {
			t.Errorf("%v: UDP_GRO is %d", mode, isOn(c))
		}
	}
}

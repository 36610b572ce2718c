// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/conn"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testprog"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// txLab is a client whose outgoing packets are watched, and a server that takes
// them.
type txLab struct {
	*netlab.Pair
	cgroup     *netlab.Cgroup
	attachment *bpf.Attachment
	wire       *wire
	sink       *net.UDPConn
	id         uint64
}

func newTxLab(t testing.TB, policy bpf.Policy) *txLab {
	t.Helper()
	return newWatchedLab(t, policy, false, nil)
}

func newWatchedLab(t testing.TB, policy bpf.Policy, tcp bool, change func(*ebpf.CollectionSpec)) *txLab {
	t.Helper()
	lab := &txLab{Pair: testutil.Pair(t)}
	lab.sinkAll(t)
	lab.cgroup = testutil.EnterCgroup(t)
	var err error
	lab.attachment, err = bpf.Attach(bpf.Options{Cgroup: lab.cgroup.Path(), Policy: &policy})
	must(t, err)
	t.Cleanup(func() { _ = lab.attachment.Close() })
	lab.wire = watchWire(t, lab.attachment, lab.Client, lab.ClientIf, tcp, change)
	return lab
}

func (lab *txLab) sinkAll(t testing.TB) {
	t.Helper()
	must(t, lab.Server.Do(func() (err error) {
		lab.sink, err = net.ListenUDP("udp", &net.UDPAddr{Port: txSinkPort})
		return err
	}))
	t.Cleanup(func() { _ = lab.sink.Close() })
	must(t, lab.sink.SetReadDeadline(time.Now().Add(time.Minute)))
}

// udp makes a socket of the client's.
func (lab *txLab) udp(t testing.TB, network string, raddr *net.UDPAddr) *sockmeta.UDPConn {
	t.Helper()
	var c *sockmeta.UDPConn
	must(t, lab.Client.Do(func() (err error) {
		if raddr != nil {
			c, err = sockmeta.DialUDP(network, nil, raddr)
		} else {
			c, err = sockmeta.ListenUDP(network, nil)
		}
		return err
	}))
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// to4 and to6 are the server's addresses.
func (lab *txLab) to4() netip.AddrPort { return netip.AddrPortFrom(lab.ServerAddr4, txSinkPort) }
func (lab *txLab) to6() netip.AddrPort { return netip.AddrPortFrom(lab.ServerAddr6, txSinkPort) }

// datagram returns a payload with an id of its own, and metadata with the same.
func (lab *txLab) datagram(t testing.TB) ([]byte, *sockmeta.Metadata) {
	t.Helper()
	lab.id++
	md := new(sockmeta.Metadata)
	must(t, md.SetUint64(testprog.KeyID, lab.id))
	return binary.NativeEndian.AppendUint64(nil, lab.id), md
}

// plain returns the payload of a datagram without metadata.
func (lab *txLab) plain() []byte {
	lab.id++
	return binary.NativeEndian.AppendUint64(nil, lab.id|noMetadata)
}

// arrives reads the datagram from the sink.
func (lab *txLab) arrives(t testing.TB, want []byte) {
	t.Helper()
	b := make([]byte, 1<<16)
	n, err := lab.sink.Read(b)
	must(t, err)
	if !bytes.Equal(b[:n], want) {
		t.Fatalf("% x arrived, want % x", b[:n], want)
	}
}

// expect checks what the programs have seen so far.
func (lab *txLab) expect(t testing.TB, with, without uint64) {
	t.Helper()
	tc, cgroup := lab.wire.counts(t)
	for _, c := range []testprog.WireWireCounts{tc, cgroup} {
		if c.Matched != with || c.Absent != without || c.Packets != with+without {
			t.Fatalf("TC     %+v\ncgroup %+v\nwant %d with metadata and %d without", tc, cgroup, with, without)
		}
	}
}

// A txKind is a kind of socket, and where it sends to.
type txKind struct {
	name, network string
	to            netip.AddrPort
	connected     bool
}

func (lab *txLab) kinds() []txKind {
	return []txKind{
		{"udp4", "udp4", lab.to4(), false},
		{"udp6", "udp6", lab.to6(), false},
		{"udp by IPv4", "udp", lab.to4(), false},
		{"udp by IPv6", "udp", lab.to6(), false},
		{"udp4 connected", "udp4", lab.to4(), true},
		{"udp6 connected", "udp6", lab.to6(), true},
	}
}

// TestSend sends by every way there is, on sockets of every kind.
func TestSend(t *testing.T) {
	testutil.Leaks(t)
	lab := newTxLab(t, bpf.DefaultPolicy())
	var with, without uint64
	for _, tt := range lab.kinds() {
		t.Run(tt.name, func(t *testing.T) {
			addr, to := net.UDPAddrFromAddrPort(tt.to), tt.to
			var raddr *net.UDPAddr
			if tt.connected {
				raddr, addr, to = addr, nil, netip.AddrPort{}
			}
			c := lab.udp(t, tt.network, raddr)
			for _, way := range []struct {
				name string
				send func(b []byte, md *sockmeta.Metadata) (int, error)
			}{
				{"WriteMetadata", func(b []byte, md *sockmeta.Metadata) (int, error) {
					return c.WriteMetadata(b, md, to)
				}},
				{"WriteMsgUDP", func(b []byte, md *sockmeta.Metadata) (int, error) {
					oob := oobOf(md)
					n, oobn, err := c.WriteMsgUDP(b, oob, addr)
					if oobn != len(oob) {
						t.Errorf("oobn is %d of %d", oobn, len(oob))
					}
					return n, err
				}},
				{"WriteMsgUDP, 16 bytes", func(b []byte, md *sockmeta.Metadata) (int, error) {
					long := addr
					if addr != nil {
						long = &net.UDPAddr{IP: addr.IP.To16(), Port: addr.Port}
					}
					n, _, err := c.WriteMsgUDP(b, oobOf(md), long)
					return n, err
				}},
				{"WriteMsgUDPAddrPort", func(b []byte, md *sockmeta.Metadata) (int, error) {
					n, _, err := c.WriteMsgUDPAddrPort(b, oobOf(md), to)
					return n, err
				}},
			} {
				b, md := lab.datagram(t)
				n, err := way.send(b, md)
				if err != nil || n != len(b) {
					t.Errorf("%s: %d, %v", way.name, n, err)
				}
				lab.arrives(t, b)
				b = lab.plain()
				if _, err := way.send(b, nil); err != nil {
					t.Errorf("%s without metadata: %v", way.name, err)
				}
				lab.arrives(t, b)
				with++
				without++
				lab.expect(t, with, without)
			}
		})
	}
}

func oobOf(md *sockmeta.Metadata) []byte {
	if md == nil {
		return nil
	}
	return md.AppendCmsg(nil)
}

// TestSendFileConn sends on connected sockets that came as files, which net takes
// for unconnected ones.
func TestSendFileConn(t *testing.T) {
	lab := newTxLab(t, bpf.DefaultPolicy())
	var sent uint64
	for network, to := range map[string]netip.AddrPort{"udp4": lab.to4(), "udp6": lab.to6(), "udp": lab.to4()} {
		f, err := lab.udp(t, network, net.UDPAddrFromAddrPort(to)).File()
		must(t, err)
		pc, err := net.FilePacketConn(f)
		must(t, errors.Join(err, f.Close()))
		c := sockmeta.WrapUDP(pc.(*net.UDPConn))
		defer c.Close()
		for range 3 {
			b, md := lab.datagram(t)
			if n, err := c.WriteMetadata(b, md, netip.AddrPort{}); n != len(b) || err != nil {
				t.Errorf("%s: %d, %v", network, n, err)
			}
			lab.arrives(t, b)
			sent++
		}
	}
	lab.expect(t, sent, 0)
}

// TestSendErrors has the same errors as package net's, and sends nothing twice.
func TestSendErrors(t *testing.T) {
	lab := newTxLab(t, bpf.DefaultPolicy())
	open, connected := lab.udp(t, "udp4", nil), lab.udp(t, "udp4", net.UDPAddrFromAddrPort(lab.to4()))
	plain := open.NetConn().(*net.UDPConn)
	plainConnected := connected.NetConn().(*net.UDPConn)
	_, md := lab.datagram(t)
	for _, tt := range []struct {
		name  string
		plain *net.UDPConn
		c     *sockmeta.UDPConn
		size  int
		to    netip.AddrPort
	}{
		{"no address", plain, open, 8, netip.AddrPort{}},
		{"an address, connected", plainConnected, connected, 8, lab.to4()},
		{"IPv6", plain, open, 8, lab.to6()},
		{"too large", plain, open, 1 << 17, lab.to4()},
		{"no route", plain, open, 8, netip.MustParseAddrPort("203.0.113.1:1")},
	} {
		b := make([]byte, tt.size)
		_, _, want := tt.plain.WriteMsgUDPAddrPort(b, nil, tt.to)
		n, got := tt.c.WriteMetadata(b, md, tt.to)
		if got == nil || n != 0 || describeErr(got) != describeErr(want) {
			t.Errorf("%s: %d, %v\nwant %v", tt.name, n, describeErr(got), describeErr(want))
		}
	}
	must(t, open.SetWriteDeadline(time.Now().Add(-time.Second)))
	if _, err := open.WriteMetadata([]byte("late"), md, lab.to4()); !isTimeout(err) {
		t.Errorf("after the deadline: %v", err)
	}
	must(t, open.SetWriteDeadline(time.Time{}))
	must(t, open.Close())
	if _, err := open.WriteMetadata([]byte("closed"), md, lab.to4()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	lab.expect(t, 0, 0)
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// TestSendApplies has marks and priorities within the policy on the packet, and
// the rest refused.
func TestSendApplies(t *testing.T) {
	lab := newTxLab(t, bpf.Policy{MarkMask: 0xff00, MaxPriority: 10})
	c := lab.udp(t, "udp4", nil)
	must(t, onSocket(c, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, 0x1234)
	}))
	refusal := func(n uint64) bpf.Counts { return bpf.Counts{Sent: n} }
	var sent uint64
	for _, tt := range []struct {
		name           string
		mark, priority int // -1: none
		wantMark       uint32
		wantPriority   uint32
		refused        string
	}{
		{"nothing", -1, -1, 0x1234, 0, ""},
		{"mark", 0xab00, -1, 0xab34, 0, ""},
		{"no mark", 0, -1, 0x0034, 0, ""},
		{"priority", -1, 10, 0x1234, 10, ""},
		{"both", 0x0100, 7, 0x0134, 7, ""},
		{"mark outside", 0xab01, 3, 0x1234, 3, "mark refused by the policy"},
		{"priority too high", 0x0200, 11, 0x0234, 0, "priority refused by the policy"},
		{"both outside", 1, 11, 0x1234, 0, "mark and priority refused by the policy"},
	} {
		b, md := lab.datagram(t)
		if tt.mark >= 0 {
			md.SetMark(uint32(tt.mark))
		}
		if tt.priority >= 0 {
			md.SetPriority(uint32(tt.priority))
		}
		n, err := c.WriteMetadata(b, md, lab.to4())
		if n != len(b) || (err == nil) != (tt.refused == "") {
			t.Fatalf("%s: %d, %v", tt.name, n, err)
		}
		if err != nil && (!errors.Is(err, sockmeta.ErrRefused) || !errors.Is(err, fs.ErrPermission) ||
			!sockmeta.IsMetadataError(err) || !strings.Contains(err.Error(), tt.refused)) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.refused)
		}
		lab.arrives(t, b)
		sent++
		lab.expect(t, sent, 0)
		tc, cgroup := lab.wire.counts(t)
		for where, c := range map[string]testprog.WireWireCounts{"TC": tc, "cgroup": cgroup} {
			if c.LastMark != tt.wantMark || c.LastPriority != tt.wantPriority {
				t.Errorf("%s: at %s mark %#x, priority %d, want %#x, %d",
					tt.name, where, c.LastMark, c.LastPriority, tt.wantMark, tt.wantPriority)
			}
		}
	}
	want := refusal(sent)
	want.MarkRefused, want.PriorityRefused = 2, 2
	if got, err := lab.attachment.Counts(); err != nil || got != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
}

// TestSendDefaultPolicy has nothing become free that takes a capability.
func TestSendDefaultPolicy(t *testing.T) {
	lab := newTxLab(t, bpf.DefaultPolicy())
	c := lab.udp(t, "udp4", nil)
	b, md := lab.datagram(t)
	md.SetMark(1)
	md.SetPriority(7)
	if _, err := c.WriteMetadata(b, md, lab.to4()); !errors.Is(err, sockmeta.ErrRefused) {
		t.Errorf("error %v", err)
	}
	lab.expect(t, 1, 0)
	if tc, _ := lab.wire.counts(t); tc.LastMark != 0 || tc.LastPriority != 0 {
		t.Errorf("mark %d, priority %d", tc.LastMark, tc.LastPriority)
	}
}

// TestSendLaunchTime has the time that was asked for on the packet, and no other.
func TestSendLaunchTime(t *testing.T) {
	for _, tt := range []struct {
		name   string
		policy bpf.Policy
		err    error
	}{
		{"allowed", bpf.DefaultPolicy(), nil},
		{"refused", bpf.Policy{MaxPriority: 6}, sockmeta.ErrRefused},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lab := newTxLab(t, tt.policy)
			c := lab.udp(t, "udp4", nil)
			launch := monotonic(t) + uint64(time.Hour)
			check := func(err error, want uint64) {
				t.Helper()
				if !errors.Is(err, tt.err) {
					t.Errorf("error %v, want %v", err, tt.err)
				}
				if tt.err != nil {
					want = 0
				}
				_, cgroup := lab.wire.counts(t)
				if cgroup.LastTstamp != want {
					t.Errorf("time %d, want %d", cgroup.LastTstamp, want)
				}
			}
			b, md := lab.datagram(t)
			md.SetLaunchTime(launch)
			_, err := c.WriteMetadata(b, md, lab.to4())
			check(err, launch)

			// The caller's own message, with a record and then without.
			launch++
			txtime := cmsg.Append(nil, unix.SOL_SOCKET, unix.SCM_TXTIME, binary.NativeEndian.AppendUint64(nil, launch))
			b, md = lab.datagram(t)
			_, _, err = c.WriteMsgUDPAddrPort(b, md.AppendCmsg(bytes.Clone(txtime)), lab.to4())
			check(err, launch)
			lab.expect(t, 2, 0)

			launch++
			txtime = cmsg.Append(nil, unix.SOL_SOCKET, unix.SCM_TXTIME, binary.NativeEndian.AppendUint64(nil, launch))
			_, _, err = c.WriteMsgUDPAddrPort(lab.plain(), txtime, lab.to4())
			must(t, err)
			if _, cgroup := lab.wire.counts(t); cgroup.LastTstamp != launch {
				t.Errorf("without metadata: time %d, want %d", cgroup.LastTstamp, launch)
			}
			lab.expect(t, 2, 1)
		})
	}
}

// TestSendOtherMessages lets the caller's control messages through.
func TestSendOtherMessages(t *testing.T) {
	lab := newTxLab(t, bpf.DefaultPolicy())
	c := lab.udp(t, "udp4", nil)
	must(t, onSocket(lab.sink, func(fd int) error {
		return errors.Join(
			unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVTOS, 1),
			unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVTTL, 1),
		)
	}))
	one := func(b byte) []byte { return []byte{b, 0, 0, 0} }
	tos := cmsg.Append(nil, unix.IPPROTO_IP, unix.IP_TOS, one(0x48))
	ttl := cmsg.Append(nil, unix.IPPROTO_IP, unix.IP_TTL, one(99))
	for i := range 3 {
		b, md := lab.datagram(t)
		var oob []byte
		for j, m := range [][]byte{tos, ttl} {
			if i == j {
				oob = md.AppendCmsg(oob)
			}
			oob = append(oob, m...)
		}
		if i == 2 {
			oob = md.AppendCmsg(oob)
			// a second record does not count
			must(t, md.SetUint64(testprog.KeyID, 1<<62))
			oob = md.AppendCmsg(oob)
		}
		_, _, err := c.WriteMsgUDP(b, oob, net.UDPAddrFromAddrPort(lab.to4()))
		must(t, err)
		got := make([]byte, 128)
		_, n, _, _, err := lab.sink.ReadMsgUDP(make([]byte, 64), got)
		must(t, err)
		gotTOS, _ := cmsg.Find(got[:n], unix.IPPROTO_IP, unix.IP_TOS)
		gotTTL, _ := cmsg.Find(got[:n], unix.IPPROTO_IP, unix.IP_TTL)
		if len(gotTOS) == 0 || gotTOS[0] != 0x48 || len(gotTTL) == 0 || gotTTL[0] != 99 {
			t.Errorf("%d: TOS % x, TTL % x", i, gotTOS, gotTTL)
		}
	}
	lab.expect(t, 3, 0)

	// The kernel says what is wrong with these, record or not.
	b, md := lab.datagram(t)
	bad := append(md.AppendCmsg(nil), bytes.Repeat([]byte{0xff}, 16)...)
	plain := c.NetConn().(*net.UDPConn)
	_, _, want := plain.WriteMsgUDPAddrPort(b, bad, lab.to4())
	_, _, got := c.WriteMsgUDPAddrPort(b, bad, lab.to4())
	if got == nil || describeErr(got) != describeErr(want) {
		t.Errorf("malformed: %v, want %v", got, want)
	}
	lab.expect(t, 3, 0)
}

// TestSendSegments has one run of the program, and one record, for a train.
func TestSendSegments(t *testing.T) {
	lab := newTxLab(t, bpf.DefaultPolicy())
	c := lab.udp(t, "udp4", nil)
	const segment, segments = 100, 20
	b, md := lab.datagram(t)
	b = append(b, make([]byte, segment*segments-len(b))...)
	oob := cmsg.Append(nil, unix.SOL_UDP, unix.UDP_SEGMENT, binary.NativeEndian.AppendUint16(nil, segment))
	n, _, err := c.WriteMsgUDPAddrPort(b, md.AppendCmsg(oob), lab.to4())
	if err != nil || n != len(b) {
		t.Fatal(n, err)
	}
	for i := range segments {
		lab.arrives(t, b[i*segment:(i+1)*segment])
	}
	lab.expect(t, 1, 0)
	if got, err := lab.attachment.Counts(); err != nil || got != (bpf.Counts{Sent: 1}) {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestSendCorked has the first record on a datagram that several calls made.
func TestSendCorked(t *testing.T) {
	lab := newTxLab(t, bpf.DefaultPolicy())
	c := lab.udp(t, "udp4", nil)
	cork := func(on int) {
		t.Helper()
		must(t, onSocket(c, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_CORK, on) }))
	}
	first, md := lab.datagram(t)
	cork(1)
	_, err := c.WriteMetadata(first, md, lab.to4())
	must(t, err)
	second, md := lab.datagram(t)
	_, err = c.WriteMetadata(second, md, lab.to4())
	must(t, err)
	cork(0)
	lab.arrives(t, append(bytes.Clone(first), second...))
	lab.expect(t, 1, 0)

	// Where the first has none, the datagram has none.
	first = lab.plain()
	cork(1)
	_, err = c.WriteMetadata(first, nil, lab.to4())
	must(t, err)
	_, err = c.WriteMetadata(second, md, lab.to4())
	must(t, err)
	cork(0)
	lab.arrives(t, append(first, second...))
	lab.expect(t, 1, 1)

	// Its slot is somebody else's meanwhile: the record is lost.
	first, md = lab.datagram(t)
	cork(1)
	_, err = c.WriteMetadata(first, md, lab.to4())
	must(t, err)
	other := lab.udp(t, "udp4", nil)
	const others = 5000
	for range others {
		b, md := lab.datagram(t)
		_, err := other.WriteMetadata(b, md, lab.to4())
		must(t, err)
	}
	cork(0)
	tc, cgroup := lab.wire.counts(t)
	got, err := lab.attachment.Counts()
	must(t, err)
	if tc.Mismatched+cgroup.Mismatched != 0 || cgroup.Lost != 1 || cgroup.Matched != 1+others || got.Stale != 1 {
		t.Errorf("TC %+v\ncgroup %+v\n%+v", tc, cgroup, got)
	}
}

func init() {
	children["uncork"] = func() error {
		return unix.SetsockoptInt(int(testutil.ChildFile(0).Fd()), unix.SOL_UDP, unix.UDP_CORK, 0)
	}
}

// TestSendUncorkedElsewhere has a datagram leave from a process that cannot know
// its record.
func TestSendUncorkedElsewhere(t *testing.T) {
	lab := newTxLab(t, bpf.DefaultPolicy())
	c := lab.udp(t, "udp4", nil)
	must(t, onSocket(c, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_CORK, 1) }))
	_, md := lab.datagram(t)
	b := lab.plain()
	must1(t)(c.WriteMetadata(b, md, lab.to4()))
	f, err := c.File()
	must(t, err)
	defer f.Close()
	if out, err := testutil.RunChild(t, "uncork", testutil.ChildOptions{Files: []*os.File{f}}); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	lab.arrives(t, b)
	lab.expect(t, 0, 1)
	if got, err := lab.attachment.Counts(); err != nil || got != (bpf.Counts{Foreign: 1}) {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestSendManyTasks sends from more threads by one socket than it has places for
// their records: some are lost to other programs, but no packet gets another's
// mark, and none another's record.
func TestSendManyTasks(t *testing.T) {
	const mask, tasks = 0xffff, 64
	lab := newWatchedLab(t, bpf.Policy{MarkMask: mask, MaxPriority: 6, LaunchTimes: true}, false, func(spec *ebpf.CollectionSpec) {
		must(t, spec.Variables["mark_mask"].Set(uint32(mask)))
	})
	c := lab.udp(t, "udp4", nil)
	count := integrityDatagrams(t) / 10 / tasks
	var wg sync.WaitGroup
	for i := range tasks {
		wg.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			var md sockmeta.Metadata
			var b [8]byte
			for n := range count {
				id := uint64(i)<<32 | uint64(i*count+n)
				if err := md.SetUint64(testprog.KeyID, id); err != nil {
					t.Error(err)
					return
				}
				md.SetMark(uint32(id) & mask)
				binary.NativeEndian.PutUint64(b[:], id)
				if _, err := c.WriteMetadata(b[:], &md, lab.to4()); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	tc, cgroup := lab.wire.counts(t)
	got, err := lab.attachment.Counts()
	must(t, err)
	t.Logf("TC     %+v\ncgroup %+v\ncounts %+v", tc, cgroup, got)
	for _, c := range []testprog.WireWireCounts{tc, cgroup} {
		// Without a place there is no mark either.
		if c.Mismatched != 0 || c.WrongMark > got.Busy || c.Packets != uint64(tasks*count) {
			t.Errorf("%d packets, %d with another's record, %d with a wrong mark", c.Packets, c.Mismatched, c.WrongMark)
		}
	}
	if got.Sent+got.Busy != uint64(tasks*count) || got.Stale+got.Foreign+got.Malformed != 0 {
		t.Errorf("%+v", got)
	}
}

// TestSendFormats sends areas of every size and format.
func TestSendFormats(t *testing.T) {
	lab := newTxLab(t, bpf.DefaultPolicy())
	c := lab.udp(t, "udp4", nil)
	var sent, raw uint64
	for size := 0; size <= cmsg.ValueMax-12; size += 7 {
		b, md := lab.datagram(t)
		must(t, md.SetBytes(20, make([]byte, size)))
		_, err := c.WriteMetadata(b, md, lab.to4())
		must(t, err)
		lab.arrives(t, b)
		sent++
	}
	lab.expect(t, sent, 0)
	for _, f := range []cmsg.Format{cmsg.FormatStruct, cmsg.FormatRaw} {
		for _, size := range []int{4, 100, cmsg.AreaMax} {
			var md sockmeta.Metadata
			must(t, md.SetRaw(make([]byte, size), f))
			b := lab.plain()
			_, err := c.WriteMetadata(b, &md, lab.to4())
			must(t, err)
			lab.arrives(t, b)
			raw++
		}
	}
	// Such records have no values by key.
	lab.expect(t, sent, raw)
	if got, err := lab.attachment.Counts(); err != nil || got != (bpf.Counts{Sent: sent + raw}) {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestSendPlain has sockets that send no metadata differ in nothing.
func TestSendPlain(t *testing.T) {
	lab := newTxLab(t, bpf.DefaultPolicy())
	c := lab.udp(t, "udp4", nil)
	clock := func() (clock int) {
		t.Helper()
		must(t, onSocket(c, func(fd int) (err error) {
			clock, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TXTIME)
			return err
		}))
		return clock
	}
	empty := new(sockmeta.Metadata)
	for _, send := range []func(b []byte) error{
		func(b []byte) error { _, err := c.WriteMetadata(b, nil, lab.to4()); return err },
		func(b []byte) error { _, err := c.WriteMetadata(b, empty, lab.to4()); return err },
		func(b []byte) error { _, _, err := c.WriteMsgUDPAddrPort(b, nil, lab.to4()); return err },
		func(b []byte) error { _, err := c.WriteToUDPAddrPort(b, lab.to4()); return err },
	} {
		b := lab.plain()
		must(t, send(b))
		lab.arrives(t, b)
	}
	lab.expect(t, 0, 4)
	if clock() != 0 {
		t.Error("SO_TXTIME is set without need")
	}
	b, md := lab.datagram(t)
	_, err := c.WriteMetadata(b, md, lab.to4())
	must(t, err)
	if clock() != unix.CLOCK_MONOTONIC {
		t.Errorf("clock %d", clock())
	}
}

// TestSendOtherClock has sockets whose times are by another clock send without.
func TestSendOtherClock(t *testing.T) {
	lab := newTxLab(t, bpf.DefaultPolicy())
	c := lab.udp(t, "udp4", nil)
	must(t, onSocket(c, func(fd int) error {
		return unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_TXTIME, string([]byte{unix.CLOCK_TAI, 0, 0, 0, 0, 0, 0, 0}))
	}))
	for range 2 {
		b := lab.plain()
		_, md := lab.datagram(t)
		n, err := c.WriteMetadata(b, md, lab.to4())
		if n != len(b) || !errors.Is(err, sockmeta.ErrNotSupported) || !strings.Contains(err.Error(), "clock") {
			t.Errorf("%d, %v", n, err)
		}
		lab.arrives(t, b)
	}
	lab.expect(t, 0, 2)
}

// TestSendDetached has packets leave, without metadata, when the programs are
// gone, and says so of sockets that had not sent any before.
func TestSendDetached(t *testing.T) {
	lab := newTxLab(t, bpf.DefaultPolicy())
	c, late := lab.udp(t, "udp4", nil), lab.udp(t, "udp4", nil)
	b, md := lab.datagram(t)
	_, err := c.WriteMetadata(b, md, lab.to4())
	must(t, err)
	lab.arrives(t, b)
	must(t, lab.attachment.Close())
	for range 3 {
		b := lab.plain()
		if n, err := c.WriteMetadata(b, md, lab.to4()); err != nil || n != len(b) {
			t.Errorf("%d, %v", n, err)
		}
		lab.arrives(t, b)
	}
	b = lab.plain()
	if n, err := late.WriteMetadata(b, md, lab.to4()); !errors.Is(err, sockmeta.ErrNotSupported) || n != len(b) {
		t.Errorf("%d, %v", n, err)
	}
	lab.arrives(t, b)
}

// TestSendUnsupported sends on sockets that nobody answers for.
func TestSendUnsupported(t *testing.T) {
	p := testutil.Pair(t)
	lab := &txLab{Pair: p}
	lab.sinkAll(t)
	var plain *net.UDPConn
	must(t, p.Client.Do(func() (err error) {
		plain, err = net.ListenUDP("udp4", nil)
		return err
	}))
	testutil.EnterCgroup(t)
	c := conn.NewUDPConn(plain)
	defer c.Close()
	_, md := lab.datagram(t)
	for _, send := range []func(b []byte) (int, error){
		func(b []byte) (int, error) { return c.WriteMetadata(b, md, lab.to4()) },
		func(b []byte) (int, error) {
			n, _, err := c.WriteMsgUDPAddrPort(b, md.AppendCmsg(nil), lab.to4())
			return n, err
		},
	} {
		b := lab.plain()
		n, err := send(b)
		if n != len(b) || !errors.Is(err, sockmeta.ErrNotSupported) || !sockmeta.IsMetadataError(err) {
			t.Errorf("%d, %v", n, err)
		}
		lab.arrives(t, b)
	}
}

// TestSendBadRecords has the payload leave where the record cannot, and an error.
func TestSendBadRecords(t *testing.T) {
	lab := newTxLab(t, bpf.DefaultPolicy())
	c := lab.udp(t, "udp4", nil)
	_, md := lab.datagram(t)
	record, err := md.MarshalBinary()
	must(t, err)
	var sent uint64
	try := func(name string, data []byte, want error) {
		t.Helper()
		b := lab.plain()
		oob := cmsg.Append(nil, cmsg.SOL_BPF, cmsg.SCM_RECORD, data)
		n, oobn, err := c.WriteMsgUDPAddrPort(b, oob, lab.to4())
		if n != len(b) || oobn != len(oob) || !errors.Is(err, want) || !sockmeta.IsMetadataError(err) {
			t.Errorf("%s: %d, %d, %v, want %v", name, n, oobn, err, want)
		}
		lab.arrives(t, b)
		sent++
	}
	for n := range len(record) {
		try("cut", record[:n], cmsg.ErrTruncated)
	}
	forge := func(at int, v byte) []byte {
		b := bytes.Clone(record)
		b[at] = v
		return b
	}
	try("version", forge(0, 0), cmsg.ErrVersion)
	try("hdr_len", forge(1, 7), cmsg.ErrMalformed)
	try("area_len", forge(2, 253), cmsg.ErrMalformed)
	try("TLV", forge(len(record)-15, 99), cmsg.ErrMalformed)
	lab.expect(t, 0, sent)
	if got, err := lab.attachment.Counts(); err != nil || got != (bpf.Counts{}) {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestSendAllocations has none in the path of every datagram.
func TestSendAllocations(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates")
	}
	lab := newTxLab(t, bpf.DefaultPolicy())
	open, connected := lab.udp(t, "udp4", nil), lab.udp(t, "udp4", net.UDPAddrFromAddrPort(lab.to4()))
	b, md := lab.datagram(t)
	oob := md.AppendCmsg(nil)
	for name, send := range map[string]func() error{
		"WriteMetadata":       func() error { _, err := open.WriteMetadata(b, md, lab.to4()); return err },
		"connected":           func() error { _, err := connected.WriteMetadata(b, md, netip.AddrPort{}); return err },
		"WriteMsgUDPAddrPort": func() error { _, _, err := open.WriteMsgUDPAddrPort(b, oob, lab.to4()); return err },
		"plain":               func() error { _, err := open.WriteToUDPAddrPort(b, lab.to4()); return err },
	} {
		if n := testing.AllocsPerRun(100, func() { must(t, send()) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

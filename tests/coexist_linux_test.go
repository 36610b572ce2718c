// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// BPF_F_ALLOW_OVERRIDE and BPF_F_ALLOW_MULTI of include/uapi/linux/bpf.h.
const (
	allowOverride = 1 << 0
	allowMulti    = 1 << 1
)

// allAttachTypes are those of our programs.
var allAttachTypes = append(slices.Clone(attachTypes), ebpf.AttachCGroupInetEgress)

// Offsets in struct __sk_buff.
const (
	skbLen    = 0
	skbMark   = 8
	skbTstamp = 152
)

// pass lets packets and options through.
var pass = asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()}

// dropLong drops packets that are longer than longPacket, as a filter does those to
// addresses that it does not like.
var dropLong = asm.Instructions{
	asm.LoadMem(asm.R2, asm.R1, skbLen, asm.Word),
	asm.Mov.Imm(asm.R0, 0),
	asm.JGT.Imm(asm.R2, longPacket, "out"),
	asm.Mov.Imm(asm.R0, 1),
	asm.Return().WithSymbol("out"),
}

const longPacket = 1000

// setField sets a field of the packet.
func setField(offset int16, size asm.Size, value int64) asm.Instructions {
	return append(asm.Instructions{
		asm.LoadImm(asm.R2, value, asm.DWord),
		asm.StoreMem(asm.R1, offset, asm.R2, size),
	}, pass...)
}

// counted counts how often the rest runs.
func counted(t *testing.T, rest asm.Instructions) (*ebpf.Map, asm.Instructions) {
	t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	must(t, err)
	t.Cleanup(func() { _ = m.Close() })
	rest = slices.Clone(rest)
	rest[0] = rest[0].WithSymbol("rest")
	return m, append(asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.FnMapLookupElem.Call(),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.JEq.Imm(asm.R0, 0, "rest"),
		asm.Mov.Imm(asm.R2, 1),
		asm.StoreXAdd(asm.R0, asm.R2, asm.DWord),
	}, rest...)
}

// otherProgram loads a program of somebody else's.
func otherProgram(t *testing.T, typ ebpf.AttachType, insns asm.Instructions) *ebpf.Program {
	t.Helper()
	spec := &ebpf.ProgramSpec{Name: "other", Type: ebpf.CGroupSKB, AttachType: typ, License: "Dual BSD/GPL", Instructions: insns}
	switch typ {
	case ebpf.AttachCGroupSockOps:
		spec.Type = ebpf.SockOps
	case ebpf.AttachCgroupInetSockRelease:
		spec.Type = ebpf.CGroupSock
	case ebpf.AttachCGroupGetsockopt, ebpf.AttachCGroupSetsockopt:
		spec.Type = ebpf.CGroupSockopt
	}
	p, err := ebpf.NewProgram(spec)
	must(t, err)
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// attachOther attaches it with a link.
func attachOther(t *testing.T, cgroup string, typ ebpf.AttachType, insns asm.Instructions) {
	t.Helper()
	l, err := link.AttachCgroup(link.CgroupOptions{Path: cgroup, Attach: typ, Program: otherProgram(t, typ, insns)})
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
}

// attachLegacy attaches it as was done before there were links.
func attachLegacy(t *testing.T, cgroup string, typ ebpf.AttachType, insns asm.Instructions, flags uint32) error {
	t.Helper()
	dir, err := os.Open(cgroup)
	must(t, err)
	p := otherProgram(t, typ, insns)
	err = link.RawAttachProgram(link.RawAttachProgramOptions{Target: int(dir.Fd()), Program: p, Attach: typ, Flags: flags})
	t.Cleanup(func() {
		if err == nil {
			must(t, link.RawDetachProgram(link.RawDetachProgramOptions{Target: int(dir.Fd()), Program: p, Attach: typ}))
		}
		_ = dir.Close()
	})
	return err
}

// TestCoexist has programs of others of all types beside ours, above and below, there
// before and after: all of them run, and metadata is what it is without them.
func TestCoexist(t *testing.T) {
	testutil.RequireRoot(t)
	for _, where := range []string{"same", "above", "below"} {
		for _, when := range []string{"before", "after"} {
			if testing.Short() && (where == "above") == (when == "before") {
				continue
			}
			t.Run(where+" "+when, func(t *testing.T) {
				testutil.Leaks(t)
				ns := testutil.Namespace(t)
				outer := testutil.EnterCgroup(t)
				inner := testutil.EnterCgroup(t)
				ours, others := inner.Path(), inner.Path()
				switch where {
				case "above":
					others = outer.Path()
				case "below":
					ours = outer.Path()
				}
				counters := make(map[string]*ebpf.Map)
				attachOthers := func() {
					for _, typ := range allAttachTypes {
						linked, insns := counted(t, pass)
						attachOther(t, others, typ, insns)
						legacy, insns := counted(t, pass)
						must(t, attachLegacy(t, others, typ, insns, allowMulti))
						counters[typ.String()+" link"], counters[typ.String()+" legacy"] = linked, legacy
					}
				}
				if when == "before" {
					attachOthers()
				}
				a, err := bpf.Attach(bpf.Options{Cgroup: ours})
				must(t, err)
				defer a.Close()
				if when == "after" {
					attachOthers()
				}
				must(t, ns.Do(func() error { return errors.Join(verifyLoopback(), verifyStream()) }))
				if n, err := a.Counts(); err != nil || n.Sent == 0 {
					t.Errorf("sent %+v, %v", n, err)
				}
				for name, m := range counters {
					var n uint64
					must(t, m.Lookup(uint32(0), &n))
					if n == 0 {
						t.Errorf("%s of others did not run", name)
					}
				}
			})
		}
	}
}

// verifyStream sends through a connection over loopback, both ways with metadata.
func verifyStream() error {
	l, err := sockmeta.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	defer l.Close()
	var md sockmeta.Metadata
	if err := md.SetUint32(sockmeta.KeyUser, 1); err != nil {
		return err
	}
	d := sockmeta.Dialer{Metadata: &md, Require: true}
	out, err := d.Dial("tcp4", l.Addr().String())
	if err != nil {
		return err
	}
	defer out.Close()
	in, err := l.AcceptTCP()
	if err != nil {
		return err
	}
	defer in.Close()
	if err := in.SetDeadline(time.Now().Add(udpPatience)); err != nil {
		return err
	}
	for range 3 {
		if _, err := out.Write([]byte("payload")); err != nil {
			return err
		}
		b := make([]byte, 64)
		if n, err := in.Read(b); err != nil || string(b[:n]) != "payload" {
			return fmt.Errorf("%q, %w", b[:n], err)
		}
		md, err := in.Metadata()
		if err != nil {
			return err
		}
		if err := wantLoopback(&md); err != nil {
			return err
		}
	}
	return nil
}

// TestCoexistExclusive attaches where another's program wants to be the only one: for
// each of our programs' types, in the cgroup and above it.
func TestCoexistExclusive(t *testing.T) {
	testutil.RequireRoot(t)
	for _, typ := range allAttachTypes {
		for _, tt := range []struct {
			name    string
			flags   uint32
			above   bool
			refused bool
		}{
			{"alone", 0, false, true},
			{"to be overridden", allowOverride, false, true},
			{"alone above", 0, true, true},
			// Then ours take its place, for cgroups below.
			{"to be overridden above", allowOverride, true, false},
		} {
			if testing.Short() && typ != ebpf.AttachCGroupGetsockopt {
				continue
			}
			t.Run(fmt.Sprintf("%s %s", linkNames[typ], tt.name), func(t *testing.T) {
				testutil.Leaks(t)
				ns := testutil.Namespace(t)
				bareCgroup(t)
				outer := testutil.EnterCgroup(t)
				inner := testutil.EnterCgroup(t)
				at := inner.Path()
				if tt.above {
					at = outer.Path()
				}
				counter, insns := counted(t, pass)
				must(t, attachLegacy(t, at, typ, insns, tt.flags))
				a, err := bpf.Attach(bpf.Options{Cgroup: inner.Path()})
				if !tt.refused {
					must(t, err)
					must(t, ns.Do(verifyLoopback))
					must(t, a.Close())
					return
				}
				if err == nil {
					a.Close()
					t.Fatal("no error")
				}
				for _, want := range []string{linkNames[typ], "BPF_F_ALLOW_MULTI"} {
					if !errors.Is(err, sockmeta.ErrNotSupported) || !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), want) {
						t.Errorf("error does not say %q: %v", want, err)
					}
				}
				want := [5]int{}
				for i, one := range attachTypes {
					if one == typ && !tt.above {
						want[i] = 1
					}
				}
				if n := countPrograms(t, inner.Path(), 0); n != want {
					t.Errorf("%v programs are in the cgroup, want the other's: %v", n, want)
				}
				must(t, ns.Do(func() error { return plainSockets("BPF_F_ALLOW_MULTI", unix.EPERM) }))
				var n uint64
				if must(t, counter.Lookup(uint32(0), &n)); n == 0 {
					t.Error("the other's program did not run")
				}
			})
		}
	}
}

// TestCoexistLatecomer has others try to be the only ones where ours are.
func TestCoexistLatecomer(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	ns := testutil.Namespace(t)
	cg := testutil.EnterCgroup(t)
	a, err := bpf.Attach(bpf.Options{Cgroup: cg.Path()})
	must(t, err)
	defer a.Close()
	for _, typ := range allAttachTypes {
		for _, flags := range []uint32{0, allowOverride} {
			if err := attachLegacy(t, cg.Path(), typ, pass, flags); !errors.Is(err, unix.EPERM) {
				t.Errorf("%s with flags %d: %v", typ, flags, err)
			}
		}
	}
	must(t, ns.Do(func() error { return errors.Join(verifyLoopback(), verifyStream()) }))
}

// TestCoexistIngressFilter has a filter drop every other datagram, before our program
// or after it: the others have their own metadata.
func TestCoexistIngressFilter(t *testing.T) {
	testutil.RequireRoot(t)
	for _, when := range []string{"before", "after"} {
		t.Run(when, func(t *testing.T) {
			testutil.Leaks(t)
			p := testutil.Pair(t)
			cg := testutil.EnterCgroup(t)
			if when == "before" {
				attachOther(t, cg.Path(), ebpf.AttachCGroupInetIngress, dropLong)
			}
			a, err := bpf.Attach(bpf.Options{Cgroup: cg.Path(), SlotsPerCPU: 64})
			must(t, err)
			defer a.Close()
			if when == "after" {
				attachOther(t, cg.Path(), ebpf.AttachCGroupInetIngress, dropLong)
			}
			attachEchoUDP(t, p)
			for _, k := range udpKinds(p)[:2] {
				c := k.serve(t, p, openMeta).(*sockmeta.UDPConn)
				client := k.dial(t, p)
				b := make([]byte, 2048)
				for id := range uint64(20) {
					send(t, client, numbered(2*id)+strings.Repeat("x", longPacket))
					send(t, client, numbered(2*id+1))
					var md sockmeta.Metadata
					n, _, err := c.ReadMetadata(b, &md)
					must(t, err)
					if string(b[:n]) != numbered(2*id+1) {
						t.Fatalf("%s: received %.20q, the filter let it through", k.name, b[:n])
					}
					wantNumbered(t, b[:n], &md)
				}
				must(t, c.Close())
				must(t, client.Close())
			}
		})
	}
}

// TestCoexistEgressFilter has a filter, such as that of systemd's IPAddressDeny, drop
// every other datagram that is sent: their senders hear of it, and the metadata of none
// comes to another.
func TestCoexistEgressFilter(t *testing.T) {
	testutil.RequireRoot(t)
	for _, where := range []string{"before", "after", "above"} {
		t.Run(where, func(t *testing.T) {
			testutil.Leaks(t)
			outer := testutil.EnterCgroup(t)
			p := testutil.Pair(t)
			cg := testutil.EnterCgroup(t)
			switch where {
			case "before":
				attachOther(t, cg.Path(), ebpf.AttachCGroupInetEgress, dropLong)
			case "above":
				attachOther(t, outer.Path(), ebpf.AttachCGroupInetEgress, dropLong)
			}
			lab := &txLab{Pair: p, cgroup: cg}
			lab.sinkAll(t)
			var err error
			lab.attachment, err = bpf.Attach(bpf.Options{Cgroup: cg.Path()})
			must(t, err)
			defer lab.attachment.Close()
			if where == "after" {
				attachOther(t, cg.Path(), ebpf.AttachCGroupInetEgress, dropLong)
			}
			lab.wire = watchWire(t, lab.attachment, lab.Client, lab.ClientIf, false, nil)
			c := lab.udp(t, "udp4", nil)
			const rounds = 20
			for range rounds {
				long, md := lab.datagram(t)
				long = append(long, make([]byte, longPacket)...)
				if _, err := c.WriteMetadata(long, md, lab.to4()); !errors.Is(err, unix.EPERM) || sockmeta.IsMetadataError(err) {
					t.Fatalf("what the filter drops: %v", err)
				}
				plain := lab.plain()
				must1(t)(c.WriteToUDPAddrPort(plain, lab.to4()))
				lab.arrives(t, plain)
				b, md := lab.datagram(t)
				must1(t)(c.WriteMetadata(b, md, lab.to4()))
				lab.arrives(t, b)
			}
			tc, _ := lab.wire.counts(t)
			if tc.Matched != rounds || tc.Absent != rounds || tc.Packets != 2*rounds {
				t.Errorf("at TC: %+v, want %d with metadata and as many without", tc, rounds)
			}
		})
	}
}

// TestCoexistRewrite has a program of others change what ours reads, before it, and
// what ours wrote, after it.
func TestCoexistRewrite(t *testing.T) {
	testutil.RequireRoot(t)
	const mark, tstamp = 0x55, int64(1_500_000_000_000_000_000)
	// Records of the native tier are made when all programs have seen the packet.
	lost := func(md *sockmeta.Metadata, err error) bool {
		return errors.Is(err, sockmeta.ErrNoMetadata) && *md == sockmeta.Metadata{}
	}
	timed := func(want int64) func(*sockmeta.Metadata, error) bool {
		return func(md *sockmeta.Metadata, err error) bool {
			got, ok := md.Timestamp()
			return err == nil && ok == (want != 0) && (!ok || got.UnixNano() == want)
		}
	}
	markAfter, timeAfter, noTimeAfter := uint32(0), lost, lost
	if native() {
		markAfter, timeAfter, noTimeAfter = mark, timed(tstamp), timed(0)
	}
	for _, tt := range []struct {
		name  string
		insns asm.Instructions
		after bool
		check func(md *sockmeta.Metadata, err error) bool
	}{
		{"mark before", setField(skbMark, asm.Word, mark), false, func(md *sockmeta.Metadata, err error) bool {
			got, ok := md.Mark()
			return err == nil && ok && got == mark
		}},
		{"mark after", setField(skbMark, asm.Word, mark), true, func(md *sockmeta.Metadata, err error) bool {
			got, _ := md.Mark()
			return err == nil && got == markAfter
		}},
		{"time before", setField(skbTstamp, asm.DWord, tstamp), false, timed(tstamp)},
		{"time after", setField(skbTstamp, asm.DWord, tstamp), true, timeAfter},
		{"no time after", setField(skbTstamp, asm.DWord, 0), true, noTimeAfter},
	} {
		t.Run(tt.name, func(t *testing.T) {
			testutil.Leaks(t)
			ns := testutil.Namespace(t)
			cg := testutil.EnterCgroup(t)
			if !tt.after {
				attachOther(t, cg.Path(), ebpf.AttachCGroupInetIngress, tt.insns)
			}
			a, err := bpf.Attach(bpf.Options{Cgroup: cg.Path()})
			must(t, err)
			defer a.Close()
			if tt.after {
				attachOther(t, cg.Path(), ebpf.AttachCGroupInetIngress, tt.insns)
			}
			var c *sockmeta.UDPConn
			var sendOn func(string) error
			must(t, ns.Do(func() (err error) {
				c, sendOn, err = loopback()
				return err
			}))
			defer c.Close()
			for range 3 {
				must(t, sendOn("payload"))
				var md sockmeta.Metadata
				b := make([]byte, 64)
				n, _, err := c.ReadMetadata(b, &md)
				if string(b[:n]) != "payload" || !tt.check(&md, err) {
					t.Errorf("%q, %v, %v", b[:n], &md, err)
				}
			}
		})
	}
}

// TestCoexistTimes has plain sockets in and outside of the cgroup ask for timestamps
// while ours receive: theirs are times.
func TestCoexistTimes(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	ns := testutil.Namespace(t)
	keepStamping(t, ns)
	const software = unix.SOF_TIMESTAMPING_SOFTWARE | unix.SOF_TIMESTAMPING_RX_SOFTWARE
	options := map[int]int{
		unix.SO_TIMESTAMP: 1, unix.SO_TIMESTAMPNS: 1, unix.SO_TIMESTAMPING: software,
		unix.SO_TIMESTAMP_NEW: 1, unix.SO_TIMESTAMPNS_NEW: 1, unix.SO_TIMESTAMPING_NEW: software,
	}
	open := func() (conns []*net.UDPConn) {
		for opt, value := range options {
			var c *net.UDPConn
			must(t, ns.Do(func() (err error) {
				c, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
				return err
			}))
			t.Cleanup(func() { _ = c.Close() })
			withFD(t, c, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, opt, value) })
			conns = append(conns, c)
		}
		return conns
	}
	conns := open()
	testutil.EnterCgroup(t)
	var ours *sockmeta.UDPConn
	var sendOurs func(string) error
	must(t, ns.Do(func() (err error) {
		ours, sendOurs, err = loopback()
		return err
	}))
	defer ours.Close()
	for _, c := range append(conns, open()...) {
		must(t, c.SetReadDeadline(time.Now().Add(udpPatience)))
		must(t, ours.SetReadDeadline(time.Now().Add(udpPatience)))
		for range 3 {
			must(t, sendOurs("ours"))
			must1(t)(ours.WriteTo([]byte("theirs"), c.LocalAddr()))
			oob := make([]byte, 128)
			_, oobn, _, _, err := c.ReadMsgUDPAddrPort(make([]byte, 64), oob)
			must(t, err)
			it := cmsg.Parse(oob[:oobn])
			m, ok := it.Next()
			if !ok {
				t.Fatal("no timestamp")
			}
			wantNow(t, m.Type, m.Data[:min(len(m.Data), 16)])
			var md sockmeta.Metadata
			if _, _, err := ours.ReadMetadata(make([]byte, 64), &md); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestCoexistSendTimes asks when datagrams left: the answer is a time, also of those
// that had a number in place of one.
func TestCoexistSendTimes(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	lab := newTxLab(t, bpf.DefaultPolicy())
	for _, opt := range []int{unix.SO_TIMESTAMPING, unix.SO_TIMESTAMPING_NEW} {
		c := lab.udp(t, "udp4", nil)
		withFD(t, c, func(fd int) error {
			return unix.SetsockoptInt(fd, unix.SOL_SOCKET, opt, unix.SOF_TIMESTAMPING_SOFTWARE|
				unix.SOF_TIMESTAMPING_TX_SOFTWARE|unix.SOF_TIMESTAMPING_TX_SCHED|unix.SOF_TIMESTAMPING_OPT_TSONLY)
		})
		for range 3 {
			b, md := lab.datagram(t)
			must1(t)(c.WriteMetadata(b, md, lab.to4()))
			lab.arrives(t, b)
			// One when it came to the queueing discipline, one when the
			// driver had it.
			for range 2 {
				wantNow(t, unix.SO_TIMESTAMPING, sendTime(t, c))
			}
			plain := lab.plain()
			must1(t)(c.WriteToUDPAddrPort(plain, lab.to4()))
			lab.arrives(t, plain)
			for range 2 {
				wantNow(t, unix.SO_TIMESTAMPING, sendTime(t, c))
			}
		}
	}
	lab.expect(t, 6, 6)
}

// sendTime reads a time from the socket's error queue.
func sendTime(t *testing.T, c *sockmeta.UDPConn) (first []byte) {
	t.Helper()
	withFD(t, c, func(fd int) error {
		oob := make([]byte, 256)
		_, oobn, _, _, err := unix.Recvmsg(fd, nil, oob, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if err != nil {
			return err
		}
		for _, typ := range []int{unix.SO_TIMESTAMPING, unix.SO_TIMESTAMPING_NEW} {
			if data, ok := cmsg.Find(oob[:oobn], unix.SOL_SOCKET, typ); ok {
				first = slices.Clone(data[:16])
			}
		}
		return nil
	})
	if first == nil {
		t.Fatal("no time in the error queue")
	}
	return first
}

// TestCoexistTxTime has sockets that did not opt in, in the cgroup, send with times of
// their own, small ones among them: they are what the packets have.
func TestCoexistTxTime(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	lab := newTxLab(t, bpf.DefaultPolicy())
	var c *net.UDPConn
	must(t, lab.Client.Do(func() (err error) {
		c, err = net.ListenUDP("udp4", nil)
		return err
	}))
	defer c.Close()
	withFD(t, c, sendByTime)
	numbers := []uint64{1, 1 << 12, 1<<22 | 1<<12, 1<<32 - 1, 1 << 32, monotonic(t)}
	for _, number := range numbers {
		b := lab.plain()
		oob := cmsg.Append(nil, unix.SOL_SOCKET, unix.SCM_TXTIME, binary.NativeEndian.AppendUint64(nil, number))
		_, _, err := c.WriteMsgUDPAddrPort(b, oob, lab.to4())
		must(t, err)
		lab.arrives(t, b)
	}
	if tc, _ := lab.wire.counts(t); tc.Tstamp != uint64(len(numbers)) || tc.Absent != uint64(len(numbers)) {
		t.Errorf("%+v, want %d with a time", tc, len(numbers))
	}
	if n, err := lab.attachment.Counts(); err != nil || n != (bpf.Counts{}) {
		t.Errorf("%+v, %v", n, err)
	}
}

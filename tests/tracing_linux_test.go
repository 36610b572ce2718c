// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/abi"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// TestTracingSupport attaches with raw control messages: where the kernel allows
// it, sockets say so; elsewhere the error does, and nothing is left behind.
func TestTracingSupport(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	cg := testutil.EnterCgroup(t)
	a, err := bpf.Attach(bpf.Options{Tracing: true})
	if err == nil && a.Info().Features&abi.FeatureNative != 0 {
		defer a.Close()
		t.Skip("the native tier reads them")
	}
	if why := noTracing(); why != nil {
		t.Log(why)
		if !errors.Is(err, sockmeta.ErrNotSupported) || !strings.Contains(err.Error(), "trampolines") {
			t.Errorf("attached: %v", err)
		}
	} else {
		must(t, err)
		if n, _ := rawPrograms(t); n != rawProgramCount {
			t.Errorf("%d programs for raw control messages, want %d", n, rawProgramCount)
		}
		c, err := sockmeta.ListenUDP("udp", nil)
		must(t, err)
		defer c.Close()
		if s := c.Support(); s.Tier != sockmeta.TierTracing || len(s.Missing) != 1 {
			t.Errorf("support is %v, missing %v", s, s.Missing)
		}
		must(t, a.Close())
		if s := c.Support(); s.Tier != sockmeta.TierNone {
			t.Errorf("after Close support is %v", s)
		}
	}
	if n, _ := rawPrograms(t); n != 0 {
		t.Errorf("%d programs for raw control messages are left", n)
	}
	if n := countPrograms(t, cg.Path(), 0); n != [5]int{} {
		t.Errorf("programs of types %v are left: %v", attachTypes, n)
	}
}

// filler is a control message that the kernel ignores.
func filler(n int) (oob []byte) {
	for i := range n {
		oob = cmsg.Append(oob, cmsg.SOL_BPF, cmsg.SCM_RECORD+1+i, make([]byte, i))
	}
	return oob
}

// walkLimit is SOCKMETA_CMSG_MAX, which the native tier does without.
const walkLimit = 32

// socketMessages are control messages that the kernel acts on.
func (c *rawConn) socketMessages() []byte {
	if c.ipv4 {
		oob := cmsg.Append(nil, unix.IPPROTO_IP, unix.IP_TOS, binary.NativeEndian.AppendUint32(nil, 8))
		return cmsg.Append(oob, unix.IPPROTO_IP, unix.IP_PKTINFO, make([]byte, unix.SizeofInet4Pktinfo))
	}
	oob := cmsg.Append(nil, unix.IPPROTO_IPV6, unix.IPV6_TCLASS, binary.NativeEndian.AppendUint32(nil, 8))
	return cmsg.Append(oob, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, make([]byte, unix.SizeofInet6Pktinfo))
}

// TestTracingMessages sends by net.UDPConn, with metadata and without, in all
// company that a record may have.
func TestTracingMessages(t *testing.T) {
	lab := newRawLab(t, bpf.Options{})
	for _, k := range lab.kinds() {
		t.Run(k.name, func(t *testing.T) {
			c := lab.open(k)
			own := c.socketMessages()
			sent := lab.counted(t, func() {
				for range 20 {
					must(t, c.send(nil, nil))
					must(t, c.sendWithout(nil))
					must(t, c.send(own, nil))
					must(t, c.sendWithout(func(uint64) []byte { return own }))
					must(t, c.send(nil, own))
					must(t, c.send(own, own))
				}
				for n := range walkLimit {
					must(t, c.send(filler(n), nil))
				}
				must(t, c.send(filler(walkLimit-1), filler(walkLimit)))
			})
			if want := (bpf.Counts{Sent: 4*20 + walkLimit + 1}); sent != want {
				t.Errorf("counted %+v, want %+v", sent, want)
			}
			if lab.native() {
				must(t, c.send(filler(walkLimit), nil))
			} else {
				must(t, c.sendWithout(func(id uint64) []byte { return append(filler(walkLimit), rawRecord(id)...) }))
			}
			must(t, c.sendWithout(func(uint64) []byte { return filler(walkLimit) }))
			// The first counts.
			must(t, c.send(nil, rawRecord(12345)))
			lab.settle(t)
		})
	}
}

// TestTracingLargest sends the largest record that there can be.
func TestTracingLargest(t *testing.T) {
	lab := newRawLab(t, bpf.Options{})
	for _, k := range lab.kinds() {
		c := lab.open(k)
		id := lab.id(true)
		md := rawMetadata(id)
		for key := cmsg.Key(17); md.SetBytes(key, make([]byte, 10)) == nil; key++ {
		}
		must(t, c.write(rawPayload(id), md.AppendCmsg(nil)))
	}
	lab.settle(t)
}

// TestTracingVersions sends records with a fixed part of other lengths than ours.
func TestTracingVersions(t *testing.T) {
	lab := newRawLab(t, bpf.Options{})
	c := lab.open(lab.kinds()[0])
	const oldest, ours, longest = 56, 64, 128
	for fixed := oldest; fixed <= longest; fixed += 4 {
		id := lab.id(true)
		rec, err := rawMetadata(id).AppendBinary(nil)
		must(t, err)
		head, area := rec[:ours], rec[ours:]
		b := append(bytes.Clone(head[:min(fixed, ours)]), bytes.Repeat([]byte{0xFF}, max(0, fixed-ours))...)
		b[0] = byte(1 + fixed/4)
		b[1] = uint8(fixed)
		b = append(b, area...)
		must(t, c.write(rawPayload(id), cmsg.Append(nil, cmsg.SOL_BPF, cmsg.SCM_RECORD, b)))
	}
	lab.settle(t)
}

// rawErrors are records that are none, and messages that hold none.
func rawErrors(id uint64) (malformed, ignored map[string][]byte) {
	rec, err := rawMetadata(id).AppendBinary(nil)
	if err != nil {
		panic(err)
	}
	message := func(level, typ int, b []byte) []byte { return cmsg.Append(nil, level, typ, b) }
	record := func(b []byte) []byte { return message(cmsg.SOL_BPF, cmsg.SCM_RECORD, b) }
	with := func(at int, v byte) []byte {
		b := bytes.Clone(rec)
		b[at] = v
		return record(b)
	}
	malformed = map[string][]byte{
		"version 0":    with(0, 0),
		"format 3":     with(3, 3),
		"long message": record(append(bytes.Clone(rec), make([]byte, 400)...)),
		"long record":  record(append(bytes.Clone(rec), make([]byte, 1<<14)...)),
	}
	for n := range rec {
		malformed[fmt.Sprintf("%d of %d bytes", n, len(rec))] = record(rec[:n])
	}
	for _, n := range []byte{0, 4, 8, 52, 57, 63, 65, 68, 128, 132, 252, 255} {
		malformed[fmt.Sprintf("fixed part of %d bytes", n)] = with(1, n)
	}
	for _, n := range []byte{1, 3, 5, 252, 253, 254, 255, byte(len(rec)-64) + 4} {
		malformed[fmt.Sprintf("area of %d bytes", n)] = with(2, n)
	}
	ignored = map[string][]byte{
		"another type":     message(cmsg.SOL_BPF, cmsg.SCM_RECORD+1, rec),
		"type 0":           message(cmsg.SOL_BPF, 0, rec),
		"negative type":    message(cmsg.SOL_BPF, -1, rec),
		"another level":    message(cmsg.SOL_BPF-1, cmsg.SCM_RECORD, rec),
		"level below":      message(cmsg.SOL_BPF&0xFF, cmsg.SCM_RECORD, rec),
		"no record at all": nil,
	}
	return malformed, ignored
}

// TestTracingMalformed sends what is no record: the datagram leaves without, and
// nothing of it is left for the next one.
func TestTracingMalformed(t *testing.T) {
	lab := newRawLab(t, bpf.Options{})
	for _, k := range lab.kinds() {
		t.Run(k.name, func(t *testing.T) {
			// One thread, one task.
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			c := lab.open(k)
			malformed, ignored := rawErrors(1)
			check := func(name string, want uint64) {
				t.Helper()
				counts := lab.counted(t, func() {
					must(t, c.sendWithout(func(id uint64) []byte {
						malformed, ignored := rawErrors(id)
						return append(malformed[name], ignored[name]...)
					}))
				})
				if counts != (bpf.Counts{Malformed: want}) {
					t.Errorf("%s: counted %+v, want %d malformed", name, counts, want)
				}
				must(t, c.sendWithout(nil))
			}
			for name := range malformed {
				check(name, 1)
			}
			for name := range ignored {
				check(name, 0)
			}
			must(t, c.send(nil, nil))
			lab.settle(t)
		})
	}
}

// failing are sends that fail although there is a record.
func (c *rawConn) failing() map[string]func() error {
	record := rawRecord(99)
	// The header in front of what follows says that it is n bytes long.
	forged := func(n uint64) []byte {
		oob := filler(1)
		if unix.SizeofPtr == 8 {
			binary.NativeEndian.PutUint64(oob, n)
		} else {
			binary.NativeEndian.PutUint32(oob, uint32(n))
		}
		return oob
	}
	write := func(n int, oob []byte) func() error {
		return func() error { return c.write(make([]byte, n), oob) }
	}
	f := map[string]func() error{
		"EMSGSIZE: longer than any":     write(1<<16, record),
		"EMSGSIZE: longer than UDP's":   write(65530, record),
		"EINVAL: forged behind, 8":      write(16, append(bytes.Clone(record), forged(8)...)),
		"EINVAL: forged behind, 0":      write(16, append(bytes.Clone(record), forged(0)...)),
		"EINVAL: forged behind, long":   write(16, append(bytes.Clone(record), forged(1000)...)),
		"EINVAL: forged behind, huge":   write(16, append(bytes.Clone(record), forged(1<<62)...)),
		"EINVAL: forged in front, 8":    write(16, append(forged(8), record...)),
		"EINVAL: forged in front, long": write(16, append(forged(1000), record...)),
		"EINVAL: another's message":     write(16, cmsg.Append(bytes.Clone(record), unix.IPPROTO_UDP, 77, nil)),
	}
	if c.to != nil {
		addr := netip.MustParseAddr("198.51.100.1")
		if !c.ipv4 {
			addr = netip.MustParseAddr("2001:db8:1::1")
		}
		f["ENETUNREACH"] = func() error {
			_, _, err := c.WriteMsgUDP(make([]byte, 16), record, udpAddr(addr, rawPort))
			return err
		}
	}
	return f
}

// TestTracingFailure has sends fail after their record was read. Neither the
// same socket's next datagram nor another's gets it.
func TestTracingFailure(t *testing.T) {
	lab := newRawLab(t, bpf.Options{})
	for _, k := range lab.kinds() {
		t.Run(k.name, func(t *testing.T) {
			// One thread, one task.
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			c, other := lab.open(k), lab.open(k)
			for name, write := range c.failing() {
				want, _, _ := strings.Cut(name, ":")
				fail := func() {
					t.Helper()
					var errno unix.Errno
					if err := write(); !errors.As(err, &errno) || unix.ErrnoName(errno) != want {
						t.Errorf("%s: sent: %v", name, err)
					}
				}
				fail()
				must(t, c.sendWithout(nil))
				fail()
				must(t, other.sendWithout(nil))
				must(t, c.sendWithout(nil))
				fail()
				must(t, c.send(nil, nil))
			}
			lab.settle(t)
		})
	}
}

// TestTracingPolicy has records ask for more than they may.
func TestTracingPolicy(t *testing.T) {
	lab := newRawLab(t, bpf.Options{Policy: &bpf.Policy{MarkMask: 0xFF, MaxPriority: 5, LaunchTimes: true}})
	for _, k := range lab.kinds() {
		t.Run(k.name, func(t *testing.T) {
			c := lab.open(k)
			for _, tt := range []struct {
				mark, priority         uint32
				wantMark, wantPriority uint32
				counts                 bpf.Counts
			}{
				{0x12, 5, 0x12, 5, bpf.Counts{Sent: 1}},
				{0x112, 5, 0, 5, bpf.Counts{Sent: 1, MarkRefused: 1}},
				{0x12, 6, 0x12, 0, bpf.Counts{Sent: 1, PriorityRefused: 1}},
				{1 << 31, 1 << 31, 0, 0, bpf.Counts{Sent: 1, MarkRefused: 1, PriorityRefused: 1}},
			} {
				id := lab.id(true)
				md := rawMetadata(id)
				md.SetMark(tt.mark)
				md.SetPriority(tt.priority)
				counts := lab.counted(t, func() { must(t, c.write(rawPayload(id), md.AppendCmsg(nil))) })
				if counts != tt.counts {
					t.Errorf("mark %#x, priority %d: counted %+v, want %+v", tt.mark, tt.priority, counts, tt.counts)
				}
				if tc, _ := lab.w.counts(t); tc.LastMark != tt.wantMark || tc.LastPriority != tt.wantPriority {
					t.Errorf("mark %#x, priority %d: the packet's are %#x, %d", tt.mark, tt.priority, tc.LastMark, tc.LastPriority)
				}
			}
			lab.settle(t)
		})
	}
}

// TestTracingLaunchTime has a launch time come in the kernel's message. One in the
// record does not count.
func TestTracingLaunchTime(t *testing.T) {
	lab := newRawLab(t, bpf.Options{})
	for _, k := range lab.kinds() {
		t.Run(k.name, func(t *testing.T) {
			c := lab.open(k)
			must(t, onSocket(c, sendByTime))
			launch := monotonic(t)
			for _, want := range []uint64{0, launch} {
				id := lab.id(true)
				md := rawMetadata(id)
				md.SetLaunchTime(launch + 1)
				oob := md.AppendCmsg(nil)
				if want != 0 {
					oob = cmsg.Append(oob, unix.SOL_SOCKET, unix.SCM_TXTIME, binary.NativeEndian.AppendUint64(nil, want))
				}
				before, _ := lab.w.counts(t)
				must(t, c.write(rawPayload(id), oob))
				after, _ := lab.w.counts(t)
				switch timed := after.Tstamp - before.Tstamp; {
				case want == 0 && timed != 0:
					t.Errorf("launch time is %d, want none", after.LastTstamp)
				case want != 0 && (timed != 1 || after.LastTstamp != want):
					t.Errorf("launch time is %d, want %d", after.LastTstamp, want)
				}
			}
			lab.settle(t)
		})
	}
}

// TestTracingCork joins messages to one datagram: it has the record of the one
// that completes it.
func TestTracingCork(t *testing.T) {
	lab := newRawLab(t, bpf.Options{})
	const udpCork = 1
	for _, k := range lab.kinds() {
		t.Run(k.name, func(t *testing.T) {
			// One thread, one task.
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			c := lab.open(k)
			to := c.sockaddr(t)
			write := func(id uint64, oob []byte, flags int) {
				t.Helper()
				must(t, onSocket(c, func(fd int) error { return unix.Sendmsg(fd, rawPayload(id), oob, to, flags) }))
			}
			cork := func(on int) {
				t.Helper()
				must(t, onSocket(c, func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_UDP, udpCork, on) }))
			}
			for range 5 {
				id := lab.id(true)
				write(id, nil, unix.MSG_MORE)
				write(id, rawRecord(id), 0)

				id = lab.id(true)
				write(id, rawRecord(98), unix.MSG_MORE)
				write(id, rawRecord(97), unix.MSG_MORE)
				write(id, rawRecord(id), 0)

				id = lab.id(false)
				write(id, rawRecord(96), unix.MSG_MORE)
				write(id, nil, 0)
				must(t, c.sendWithout(nil))

				// Here it is a socket option that completes it.
				id = lab.id(false)
				cork(1)
				write(id, rawRecord(95), 0)
				write(id, rawRecord(94), 0)
				cork(0)
				must(t, c.sendWithout(nil))
				must(t, c.send(nil, nil))
			}
			lab.settle(t)
		})
	}
}

// TestTracingMmsg sends several messages by one sendmmsg.
func TestTracingMmsg(t *testing.T) {
	lab := newRawLab(t, bpf.Options{})
	for _, k := range lab.kinds() {
		t.Run(k.name, func(t *testing.T) {
			c := lab.open(k)
			same, other := c.sockaddr(t), c.sockaddr(t)
			switch a := other.(type) {
			case *unix.SockaddrInet4:
				a.Port = otherRawPort
			case *unix.SockaddrInet6:
				a.Port = otherRawPort
			}
			for range 10 {
				var b mmsg
				for _, m := range []struct {
					to   unix.Sockaddr
					with bool
				}{{same, true}, {same, true}, {same, false}, {same, true}, {other, true}, {other, false}, {other, true}, {same, true}, {same, false}} {
					id := lab.id(m.with)
					var oob []byte
					if m.with {
						oob = rawRecord(id)
					}
					b.add(rawPayload(id), oob, m.to)
				}
				must(t, onSocket(c, b.send))
			}
			lab.settle(t)
		})
	}
}

// TestTracingIOUring has io_uring send, in the task that asks for it and in its
// workers.
func TestTracingIOUring(t *testing.T) {
	lab := newRawLab(t, bpf.Options{})
	r, err := newRing(8)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		t.Skipf("the kernel allows no io_uring: %v", err)
	}
	must(t, err)
	defer r.close()
	// A socket knows the packets of 8 tasks, SOCKMETA_FLIGHTS.
	must(t, r.limitWorkers(4))
	for _, k := range lab.kinds() {
		for _, flags := range []uint8{0, iosqeAsync} {
			t.Run(fmt.Sprintf("%s, flags %#x", k.name, flags), func(t *testing.T) {
				var conns []*rawConn
				for round := range 40 {
					// Several workers are the first to send by them.
					if round%2 == 0 {
						conns = []*rawConn{lab.open(k), lab.open(k)}
					}
					var b mmsg
					var fds []int
					for i := range r.entries {
						c := conns[i&1]
						must(t, onSocket(c, func(fd int) error { fds = append(fds, fd); return nil }))
						with := i%3 != 2
						id := lab.id(with)
						var oob []byte
						if with {
							oob = rawRecord(id)
						}
						b.add(rawPayload(id), oob, c.sockaddr(t))
					}
					must(t, r.sendmsg(fds, &b, flags))
				}
				lab.settle(t)
			})
		}
	}
}

// TestTracingConcurrent has many tasks send on many sockets.
func TestTracingConcurrent(t *testing.T) {
	const tasks = 8
	datagrams := testutil.Scale(20_000)
	lab := newRawLab(t, bpf.Options{})
	var shared []*rawConn
	for _, k := range lab.kinds() {
		shared = append(shared, lab.open(k))
	}
	errs := make(chan error, tasks)
	var wg sync.WaitGroup
	for task := range tasks {
		own := []*rawConn{lab.open(lab.kinds()[task%6]), lab.open(lab.kinds()[(task+1)%6])}
		wg.Go(func() {
			runtime.LockOSThread()
			conns := append(own, shared...)
			for i := range datagrams / tasks {
				c := conns[i%len(conns)]
				var err error
				if i%4 == 3 {
					err = c.sendWithout(nil)
				} else {
					err = c.send(nil, nil)
				}
				if err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	lab.settle(t)
}

// TestTracingOwnSockets has sockmeta's sockets send in all ways that there are.
func TestTracingOwnSockets(t *testing.T) {
	lab := newRawLab(t, bpf.Options{})
	c := listenUDP(t, lab.Client, "udp4", udpAddr(lab.ClientAddr4, 0))
	to := netip.AddrPortFrom(lab.ServerAddr4, rawPort)
	sa := &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: rawPort}
	for range 20 {
		id := lab.id(true)
		must1(t)(c.WriteMetadata(rawPayload(id), rawMetadata(id), to))
		id = lab.id(true)
		_, _, err := c.WriteMsgUDPAddrPort(rawPayload(id), rawRecord(id), to)
		must(t, err)
		id = lab.id(true)
		must(t, onSocket(c, func(fd int) error { return unix.Sendmsg(fd, rawPayload(id), rawRecord(id), sa, 0) }))
		must1(t)(c.WriteToUDPAddrPort(rawPayload(lab.id(false)), to))
	}
	lab.settle(t)
	if tc, _ := lab.w.counts(t); tc.Tstamp != 0 {
		t.Errorf("%d datagrams have a time", tc.Tstamp)
	}
}

// TestTracingSharing has a second process join the attachment, which outlives
// the first and ends with the last.
func TestTracingSharing(t *testing.T) {
	lab := newRawLab(t, bpf.Options{})
	c := lab.open(lab.kinds()[0])
	must(t, c.send(nil, nil))
	h := startHolder(t)
	if !h.shared {
		t.Error("the second process has attached programs of its own")
	}
	must(t, lab.a.Close())
	if n, _ := rawPrograms(t); n != rawProgramCount && !lab.native() {
		t.Errorf("%d programs for raw control messages, want %d", n, rawProgramCount)
	}
	for range 20 {
		must(t, c.send(nil, nil))
		must(t, c.sendWithout(nil))
	}
	must(t, h.stop())
	if n, _ := rawPrograms(t); n != 0 {
		t.Errorf("%d programs for raw control messages are left", n)
	}
	must(t, c.sendWithout(rawRecord))
	must(t, c.sendWithout(nil))
	lab.settle(t)
}

// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testprog"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
)

const (
	rawPort      = 7300
	otherRawPort = 7301
)

// trampolines returns why the kernel allows no BPF trampolines, or nil.
var trampolines = sync.OnceValue(func() error {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "trampoline", Type: ebpf.Tracing, AttachType: ebpf.AttachTraceFEntry, AttachTo: "udp_sendmsg",
		License: "Dual BSD/GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err == nil {
		err = prog.Close()
	}
	return err
})

// A rawLab is a pair of hosts. The client's sockets are plain ones in a cgroup
// where raw control messages are read, and of what they send the metadata is
// compared with the payload.
type rawLab struct {
	*netlab.Pair
	t *testing.T
	a *bpf.Attachment
	w *wire

	ids atomic.Uint64
	// What was sent with metadata and without, since the last settle.
	with, without atomic.Uint64
	before        [2]testprog.WireWireCounts
}

func newRawLab(t *testing.T, opts bpf.Options) *rawLab {
	t.Helper()
	testutil.RequireRoot(t)
	if err := trampolines(); err != nil {
		t.Skipf("the kernel allows no BPF trampolines: %v", err)
	}
	testutil.Leaks(t)
	lab := &rawLab{Pair: testutil.Pair(t), t: t}
	testutil.EnterCgroup(t)
	opts.Tracing = true
	var err error
	lab.a, err = bpf.Attach(opts)
	must(t, err)
	t.Cleanup(func() { _ = lab.a.Close() })
	lab.w = watchWire(t, lab.a, lab.Client, lab.ClientIf, false, nil)
	for _, port := range []int{rawPort, otherRawPort} {
		lab.sink(port)
	}
	return lab
}

// sink keeps the server from answering that nobody listens.
func (lab *rawLab) sink(port int) {
	lab.t.Helper()
	must(lab.t, lab.Server.Do(func() error {
		c, err := net.ListenUDP("udp", &net.UDPAddr{Port: port})
		if err == nil {
			lab.t.Cleanup(func() { _ = c.Close() })
		}
		return err
	}))
}

// rawKind is a kind of client socket.
type rawKind struct {
	name, network string
	server        netip.Addr
	connected     bool
}

func (lab *rawLab) kinds() []rawKind {
	return []rawKind{
		{"udp4", "udp4", lab.ServerAddr4, false},
		{"udp4 connected", "udp4", lab.ServerAddr4, true},
		{"udp6", "udp6", lab.ServerAddr6, false},
		{"udp6 connected", "udp6", lab.ServerAddr6, true},
		{"IPv4-mapped", "udp", lab.ServerAddr4, false},
		{"IPv4-mapped connected", "udp6", netip.AddrFrom16(lab.ServerAddr4.As16()), true},
	}
}

// A rawConn is a plain client socket.
type rawConn struct {
	*net.UDPConn
	lab *rawLab
	// to is nil where the socket is connected.
	to *net.UDPAddr
	// ipv4 says which control messages the socket understands.
	ipv4 bool
}

func (lab *rawLab) open(k rawKind) *rawConn {
	lab.t.Helper()
	c := &rawConn{lab: lab, to: udpAddr(k.server, rawPort), ipv4: k.server.Unmap().Is4()}
	if !k.connected {
		must(lab.t, lab.Client.Do(func() (err error) {
			c.UDPConn, err = net.ListenUDP(k.network, nil)
			return err
		}))
	} else {
		c.UDPConn = lab.connect(k)
		c.to = nil
	}
	lab.t.Cleanup(func() { _ = c.Close() })
	return c
}

// id returns the number that a datagram's payload begins with.
func (lab *rawLab) id(with bool) uint64 {
	if with {
		lab.with.Add(1)
		return lab.ids.Add(1)
	}
	lab.without.Add(1)
	return lab.ids.Add(1) | noMetadata
}

func rawPayload(id uint64) []byte {
	return append(binary.NativeEndian.AppendUint64(nil, id), "payload"...)
}

// rawMetadata has the datagram's number.
func rawMetadata(id uint64) *cmsg.Metadata {
	md := new(cmsg.Metadata)
	if err := md.SetUint64(testprog.KeyID, id); err != nil {
		panic(err)
	}
	return md
}

func rawRecord(id uint64) []byte { return rawMetadata(id).AppendCmsg(nil) }

// send sends a datagram whose metadata arrive at the wire, among the other
// control messages.
func (c *rawConn) send(before, after []byte) error {
	id := c.lab.id(true)
	oob := append(append(before[:len(before):len(before)], rawRecord(id)...), after...)
	_, _, err := c.WriteMsgUDP(rawPayload(id), oob, c.to)
	return err
}

// sendWithout sends a datagram that comes without at the wire. The number is the
// one that metadata among the control messages has.
func (c *rawConn) sendWithout(oob func(id uint64) []byte) error {
	id := c.lab.id(false)
	var b []byte
	if oob != nil {
		b = oob(id)
	}
	_, _, err := c.WriteMsgUDP(rawPayload(id), b, c.to)
	return err
}

// settle checks that each datagram that was sent since the last time left as it
// should.
func (lab *rawLab) settle(t *testing.T) {
	t.Helper()
	with, without := lab.with.Swap(0), lab.without.Swap(0)
	tc, cgroup := lab.w.counts(t)
	for i, now := range []testprog.WireWireCounts{tc, cgroup} {
		was := lab.before[i]
		lab.before[i] = now
		where := [...]string{"TC", "cgroup"}[i]
		if got := now.Matched - was.Matched; got != with {
			t.Errorf("%s: %d datagrams matched, want %d", where, got, with)
		}
		if got := now.Absent - was.Absent; got != without {
			t.Errorf("%s: %d datagrams without, want %d", where, got, without)
		}
		if got := now.Packets - was.Packets; got != with+without {
			t.Errorf("%s: %d datagrams, want %d", where, got, with+without)
		}
		if now.Mismatched != was.Mismatched || now.Lost != was.Lost || now.Unexpected != was.Unexpected {
			t.Errorf("%s: %d of another's, %d lost, %d unexpected; the last: %#x with %#x, error %d", where,
				now.Mismatched-was.Mismatched, now.Lost-was.Lost, now.Unexpected-was.Unexpected,
				now.BadId, now.BadRecord, now.BadErr)
		}
	}
}

// counted runs f and returns what it adds to the attachment's counts.
func (lab *rawLab) counted(t *testing.T, f func()) (diff bpf.Counts) {
	t.Helper()
	before, err := lab.a.Counts()
	must(t, err)
	f()
	after, err := lab.a.Counts()
	must(t, err)
	return bpf.Counts{
		Sent:            after.Sent - before.Sent,
		Malformed:       after.Malformed - before.Malformed,
		MarkRefused:     after.MarkRefused - before.MarkRefused,
		PriorityRefused: after.PriorityRefused - before.PriorityRefused,
		LaunchRefused:   after.LaunchRefused - before.LaunchRefused,
	}
}

// onFD calls f with a socket's descriptor, on this goroutine's thread.
func onFD(c syscall.Conn, f func(fd int) error) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := rc.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err
	}
	return ferr
}

// rawPrograms counts the programs for raw control messages that are attached, and
// the calls that they missed.
func rawPrograms(t *testing.T) (attached int, missed uint64) {
	t.Helper()
	it := new(link.Iterator)
	defer it.Close()
	for it.Next() {
		info, err := it.Link.Info()
		must(t, err)
		if info.Tracing() == nil {
			continue
		}
		prog, err := ebpf.NewProgramFromID(info.Program)
		must(t, err)
		pinfo, err := prog.Info()
		must(t, err)
		stats, err := prog.Stats()
		must(t, err)
		_ = prog.Close()
		if strings.HasPrefix(pinfo.Name, "sockmeta_udp") {
			attached++
			missed += stats.RecursionMisses
		}
	}
	must(t, it.Err())
	return attached, missed
}

// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/abi"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testprog"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
)

const (
	rawPort      = 7300
	otherRawPort = 7301
)

// noTracing returns why the kernel cannot read raw control messages, or nil.
var noTracing = sync.OnceValue(func() error {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "trampoline", Type: ebpf.Tracing, AttachType: ebpf.AttachTraceFEntry, AttachTo: "udp_sendmsg",
		License: "Dual BSD/GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	switch {
	case errors.Is(err, unix.EPERM):
		// Without the loader's guess, which is about memory limits.
		err = unix.EPERM
	case err == nil:
		return prog.Close()
	}
	return fmt.Errorf("the kernel allows no BPF trampolines: %w", err)
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
	if why := noTracing(); why != nil {
		t.Skip(why)
	}
	testutil.Leaks(t)
	lab := &rawLab{Pair: testutil.Pair(t), t: t}
	// A record is lost where its datagram waits for the server's hardware address
	// and the task sends another meanwhile (bpf/include/sockmeta_tx.h).
	must(t, lab.Introduce())
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

// native says whether the kernel itself gives programs the control messages.
func (lab *rawLab) native() bool { return lab.a.Info().Features&abi.FeatureNative != 0 }

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
	lab  *rawLab
	kind rawKind
	// to is nil where the socket is connected.
	to *net.UDPAddr
	// ipv4 says which control messages the socket understands.
	ipv4 bool
}

func (lab *rawLab) open(k rawKind) *rawConn {
	lab.t.Helper()
	c := &rawConn{lab: lab, kind: k, to: udpAddr(k.server, rawPort), ipv4: k.server.Unmap().Is4()}
	must(lab.t, lab.Client.Do(func() (err error) {
		switch {
		case !k.connected:
			c.UDPConn, err = net.ListenUDP(k.network, nil)
		case k.server.Is4In6():
			c.UDPConn, err = dialMapped(netip.AddrPortFrom(k.server, rawPort))
		default:
			c.UDPConn, err = net.DialUDP(k.network, nil, c.to)
		}
		return err
	}))
	if k.connected {
		c.to = nil
	}
	lab.t.Cleanup(func() { _ = c.Close() })
	return c
}

// dialMapped connects an IPv6 socket to an IPv4 address, for which package net
// takes an IPv4 one.
func dialMapped(to netip.AddrPort) (*net.UDPConn, error) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), "mapped")
	defer f.Close()
	if err := unix.Connect(fd, &unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())}); err != nil {
		return nil, os.NewSyscallError("connect", err)
	}
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return c.(*net.UDPConn), nil
}

// write sends a datagram by net.UDPConn, but where that takes a connected socket
// for one that is not.
func (c *rawConn) write(b, oob []byte) error {
	if c.kind.connected && c.kind.server.Is4In6() {
		return onSocket(c, func(fd int) error { return unix.Sendmsg(fd, b, oob, nil, 0) })
	}
	_, _, err := c.WriteMsgUDP(b, oob, c.to)
	return err
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
	return c.write(rawPayload(id), oob)
}

// sendWithout sends a datagram that comes without at the wire. The number is the
// one that metadata among the control messages has.
func (c *rawConn) sendWithout(oob func(id uint64) []byte) error {
	id := c.lab.id(false)
	var b []byte
	if oob != nil {
		b = oob(id)
	}
	return c.write(rawPayload(id), b)
}

// settle checks that each datagram that was sent since the last time left as it
// should. One may have lost its metadata where the kernel left out both programs
// that look for them, see tracing.bpf.c.
func (lab *rawLab) settle(t *testing.T) {
	t.Helper()
	with, without := lab.with.Swap(0), lab.without.Swap(0)
	tc, cgroup := lab.w.counts(t)
	_, missed := rawPrograms(t)
	for i, now := range []testprog.WireWireCounts{tc, cgroup} {
		was := lab.before[i]
		lab.before[i] = now
		where := [...]string{"TC", "cgroup"}[i]
		lost := now.Lost - was.Lost
		if got := now.Matched - was.Matched; 2*lost > missed || got+lost != with {
			t.Errorf("%s: %d datagrams matched, want %d; %d lost, programs missed %d calls", where, got, with, lost, missed)
		}
		if lost != 0 {
			t.Logf("%s: %d datagrams lost their metadata, at the last %#x with error %d", where, lost, now.BadId, now.BadErr)
		}
		if got := now.Absent - was.Absent; got != without {
			t.Errorf("%s: %d datagrams without, want %d", where, got, without)
		}
		if got := now.Packets - was.Packets; got != with+without {
			t.Errorf("%s: %d datagrams, want %d", where, got, with+without)
		}
		if now.Mismatched != was.Mismatched || now.Unexpected != was.Unexpected {
			t.Errorf("%s: %d with another's metadata, %d with unexpected: the last is %#x with %#x, error %d", where,
				now.Mismatched-was.Mismatched, now.Unexpected-was.Unexpected, now.BadId, now.BadRecord, now.BadErr)
		}
	}
	if missed != 0 {
		t.Logf("programs missed %d calls", missed)
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

// rawProgramCount is how many programs an attachment has for raw control messages.
const rawProgramCount = 8

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

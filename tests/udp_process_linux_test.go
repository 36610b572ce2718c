// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/abi"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

func init() {
	children["udpUnsupported"] = udpUnsupported
	children["udpGranted"] = func() error {
		return udpSupported(func(c *sockmeta.UDPConn) error { return checkSupport(c, false) })
	}
	children["udpAttaches"] = func() error { return udpSupported(checkUnprivileged) }
	children["udpForeign"] = udpForeign
	children["udpHolder"] = udpHolder
}

const nobody = 65534

// loopback makes a socket on the loopback interface, and returns it with a
// function that sends to it.
func loopback() (*sockmeta.UDPConn, func(payload string) error, error) {
	c, err := sockmeta.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, nil, err
	}
	if err := c.SetReadDeadline(time.Now().Add(udpPatience)); err != nil {
		return nil, nil, err
	}
	return c, func(payload string) error {
		_, err := c.WriteTo([]byte(payload), c.LocalAddr())
		return err
	}, nil
}

// wantUnsupported says how an error differs from the one that a process without
// privileges gets.
func wantUnsupported(what string, err error) error {
	if !errors.Is(err, sockmeta.ErrNotSupported) || !errors.Is(err, errors.ErrUnsupported) || !sockmeta.IsMetadataError(err) {
		return fmt.Errorf("%s: error is %v", what, err)
	}
	for _, name := range []string{"CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"} {
		if !strings.Contains(err.Error(), name) {
			return fmt.Errorf("%s: %q does not name %s", what, err, name)
		}
	}
	var op *net.OpError
	if !errors.As(err, &op) {
		return fmt.Errorf("%s: no net.OpError in %v", what, err)
	}
	return nil
}

// udpUnsupported has plain sockets with nothing to attach programs by.
func udpUnsupported() error {
	c, send, err := loopback()
	if err != nil {
		return err
	}
	defer c.Close()
	s := c.Support()
	if s.Tier != sockmeta.TierNone || s.Mapped || !errors.Is(s.Err(), sockmeta.ErrNotSupported) {
		return fmt.Errorf("support is %v", s)
	}
	for _, r := range udpReads {
		if err := send(r.name); err != nil {
			return err
		}
		b := make([]byte, 64)
		n, _, err := r.read(c, b)
		if err != nil || string(b[:n]) != r.name {
			return fmt.Errorf("%s: %q, %w", r.name, b[:n], err)
		}
		md, err := c.Metadata()
		if err := wantUnsupported(r.name, err); err != nil {
			return err
		}
		if md != (sockmeta.Metadata{}) {
			return fmt.Errorf("%s: metadata %v", r.name, md)
		}
	}
	if err := send("payload"); err != nil {
		return err
	}
	var md sockmeta.Metadata
	md.SetMark(4711)
	b := make([]byte, 64)
	n, addr, err := c.ReadMetadata(b, &md)
	if string(b[:n]) != "payload" || addr != c.LocalAddr().(*net.UDPAddr).AddrPort() || md != (sockmeta.Metadata{}) {
		return fmt.Errorf("ReadMetadata: %q from %v, metadata %v", b[:n], addr, md)
	}
	if err := wantUnsupported("ReadMetadata", err); err != nil {
		return err
	}
	if err := wantUnsupported("SetMetadataMessage", c.SetMetadataMessage(true)); err != nil {
		return err
	}

	lc := sockmeta.ListenConfig{Require: true}
	pc, err := lc.ListenPacket(context.Background(), "udp", "127.0.0.1:0")
	if pc != nil {
		return fmt.Errorf("ListenPacket returned %v", pc)
	}
	if err := wantUnsupported("ListenPacket", err); err != nil {
		return err
	}
	l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if l != nil {
		return fmt.Errorf("Listen returned %v", l)
	}
	if err := wantUnsupported("Listen", err); err != nil {
		return err
	}
	d := sockmeta.Dialer{Require: true}
	dc, err := d.Dial("udp", c.LocalAddr().String())
	if dc != nil {
		return fmt.Errorf("Dial returned %v", dc)
	}
	return wantUnsupported("Dial", err)
}

// udpSupported reads metadata of the loopback interface's datagrams. check looks at the
// connection's support.
func udpSupported(check func(*sockmeta.UDPConn) error) error {
	lc := sockmeta.ListenConfig{Require: true}
	pc, err := lc.ListenPacket(context.Background(), "udp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer pc.Close()
	c := pc.(*sockmeta.UDPConn)
	if err := check(c); err != nil {
		return err
	}
	if err := c.SetReadDeadline(time.Now().Add(udpPatience)); err != nil {
		return err
	}
	b := make([]byte, 64)
	for i := range 10 {
		payload := strings.Repeat("x", i)
		if _, err := c.WriteTo([]byte(payload), c.LocalAddr()); err != nil {
			return err
		}
		var md sockmeta.Metadata
		n, _, err := c.ReadMetadata(b, &md)
		if err != nil || string(b[:n]) != payload {
			return fmt.Errorf("ReadMetadata: %q, %w", b[:n], err)
		}
		if err := wantLoopback(&md); err != nil {
			return err
		}
		later, err := c.Metadata()
		if err != nil || later != md {
			return fmt.Errorf("Metadata: %v, %w", later, err)
		}
	}
	return wantNoAllocs(c)
}

// wantNoAllocs reads what c sends to itself.
func wantNoAllocs(c *sockmeta.UDPConn) (err error) {
	if raceDetector {
		return nil // which allocates
	}
	var md sockmeta.Metadata
	b, self := []byte("payload"), c.LocalAddr().(*net.UDPAddr).AddrPort()
	allocs := testing.AllocsPerRun(100, func() {
		_, werr := c.WriteToUDPAddrPort(b, self)
		_, _, rerr := c.ReadMetadata(b, &md)
		err = errors.Join(err, werr, rerr)
	})
	if err == nil && allocs != 0 {
		err = fmt.Errorf("ReadMetadata: %v allocations", allocs)
	}
	return err
}

func wantLoopback(md *sockmeta.Metadata) error {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return err
	}
	if got, ok := md.IfIndex(); !ok || got != lo.Index {
		return fmt.Errorf("interface is %d, %v, want %d", got, ok, lo.Index)
	}
	return nil
}

var attachTypes = []ebpf.AttachType{
	ebpf.AttachCGroupInetIngress, ebpf.AttachCGroupGetsockopt,
	ebpf.AttachCGroupSetsockopt, ebpf.AttachCGroupSockOps, ebpf.AttachCgroupInetSockRelease,
}

// countPrograms counts the programs that are attached to a cgroup, by type.
func countPrograms(t *testing.T, cgroup string, flags uint32) (counts [5]int) {
	t.Helper()
	dir, err := os.Open(cgroup)
	must(t, err)
	defer dir.Close()
	for i, typ := range attachTypes {
		r, err := link.QueryPrograms(link.QueryOptions{Target: int(dir.Fd()), Attach: typ, QueryFlags: flags})
		must(t, err)
		counts[i] = len(r.Programs)
	}
	return counts
}

// bareCgroup is a cgroup where no programs are at work, not even those of
// cgroups above.
func bareCgroup(t *testing.T) {
	t.Helper()
	cg := testutil.EnterCgroup(t)
	const effective = 1 // BPF_F_QUERY_EFFECTIVE
	if n := countPrograms(t, cg.Path(), effective); n != [5]int{} {
		testutil.Skip(t, fmt.Sprintf("somebody has attached programs to a cgroup above: %v of types %v", n, attachTypes))
	}
}

func TestUDPUnprivileged(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	bareCgroup(t)
	testutil.Unprivileged(t, "udpUnsupported")
}

// TestUDPGranted has a process without privileges use what another attached.
func TestUDPGranted(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	cg := testutil.EnterCgroup(t)
	a, err := bpf.Attach(bpf.Options{Cgroup: cg.Path()})
	must(t, err)
	defer a.Close()
	testutil.Unprivileged(t, "udpGranted")
}

// TestUDPCapabilities has a process attach with no more than it needs.
func TestUDPCapabilities(t *testing.T) {
	testutil.RequireRoot(t)
	needed := []uintptr{unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_PERFMON}
	for _, tt := range []struct {
		name string
		uid  uint32
	}{{"root", 0}, {"nobody", nobody}} {
		t.Run(tt.name, func(t *testing.T) {
			bareCgroup(t)
			out, err := testutil.RunChild(t, "udpAttaches", testutil.ChildOptions{
				UID: tt.uid, GID: tt.uid, KeepCaps: needed, NoNewPrivs: true,
			})
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	for i, missing := range []string{"CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"} {
		t.Run("without "+missing, func(t *testing.T) {
			bareCgroup(t)
			rest := append([]uintptr(nil), needed[:i]...)
			out, err := testutil.RunChild(t, "udpAttaches", testutil.ChildOptions{
				UID: nobody, GID: nobody, KeepCaps: append(rest, needed[i+1:]...), NoNewPrivs: true,
			})
			if err == nil || !strings.Contains(string(out), "missing "+missing+":") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

const handleEnv = "SOCKMETA_TEST_HANDLE"

// TestUDPForeignSlots hands a socket to a process that looks for the records of
// other sockets with it.
func TestUDPForeignSlots(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	cg := testutil.EnterCgroup(t)
	a, err := bpf.Attach(bpf.Options{Cgroup: cg.Path(), SlotsPerCPU: 16})
	must(t, err)
	defer a.Close()
	mine, sendMine, err := loopback()
	must(t, err)
	defer mine.Close()
	given, sendGiven, err := loopback()
	must(t, err)
	defer given.Close()
	withFD(t, mine, carryHandles)
	withFD(t, given, carryHandles)
	must(t, sendGiven("given"))
	for range 8 {
		must(t, sendMine("mine"))
	}
	var handle uint64
	withFD(t, mine, func(fd int) (err error) {
		handle, err = readHandle(fd)
		return err
	})
	var md sockmeta.Metadata
	withFD(t, mine, func(fd int) error {
		_, err := bpf.SocketSlot(fd, handle, md.Record())
		return err
	})
	must(t, wantLoopback(&md))

	f, err := given.File()
	must(t, err)
	defer f.Close()
	out, err := testutil.RunChild(t, "udpForeign", testutil.ChildOptions{
		UID: nobody, GID: nobody, NoNewPrivs: true, Files: []*os.File{f},
		Env: []string{fmt.Sprintf("%s=%d", handleEnv, handle)},
	})
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// readHandle reads a datagram as the wrapper does.
func readHandle(fd int) (uint64, error) {
	oob := make([]byte, 1024)
	_, oobn, _, _, err := unix.Recvmsg(fd, make([]byte, 64), oob, unix.MSG_DONTWAIT)
	if err != nil {
		return 0, err
	}
	return handleIn(oob[:oobn])
}

// handleIn returns the handle in the control messages of a datagram.
func handleIn(oob []byte) (uint64, error) {
	data, ok := cmsg.Find(oob, unix.SOL_SOCKET, unix.SO_TIMESTAMPING)
	if !ok {
		data, ok = cmsg.Find(oob, unix.SOL_SOCKET, unix.SO_TIMESTAMPING_NEW)
	}
	if !ok || len(data) < 16 {
		return 0, fmt.Errorf("no handle in %x", oob)
	}
	return binary.NativeEndian.Uint64(data)*1e9 + binary.NativeEndian.Uint64(data[8:]), nil
}

func udpForeign() error {
	foreign, err := strconv.ParseUint(os.Getenv(handleEnv), 10, 64)
	if err != nil {
		return err
	}
	fd := int(testutil.ChildFile(0).Fd())
	info, err := bpf.SocketInfo(fd)
	if err != nil {
		return err
	}
	if s, _ := bpf.FindSlots(info, ""); s != nil {
		return errors.New("the receive map can be mapped")
	}
	var md sockmeta.Metadata
	if _, err := bpf.SocketSlot(fd, foreign, md.Record()); !errors.Is(err, bpf.ErrOverrun) || md != (sockmeta.Metadata{}) {
		return fmt.Errorf("another socket's slot: %v, %w", md, err)
	}
	found := 0
	for i := range int(info.Slots) + 4 {
		b := make([]byte, unsafe.Sizeof(abi.Answer{}))
		size := uint32(len(b))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), abi.SOL_BPF, uintptr(abi.OptSlot+i),
			uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch errno {
		case 0:
			found++
		case unix.ENODATA:
			if !bytes.Equal(b, make([]byte, len(b))) {
				return fmt.Errorf("slot %d: refused, and wrote %x", i, b)
			}
		default:
			return fmt.Errorf("slot %d: %w", i, errno)
		}
	}
	if found != 1 {
		return fmt.Errorf("%d slots answered, want the socket's own", found)
	}
	handle, err := readHandle(fd)
	if err != nil {
		return err
	}
	if _, err := bpf.SocketSlot(fd, handle, md.Record()); err != nil {
		return fmt.Errorf("own slot: %w", err)
	}
	return nil
}

// udpHolder is the other process of TestUDPSharing: it holds an attachment until
// its first file, the reading end of a pipe, ends, and says on the second that
// it does.
func udpHolder() error {
	a, err := bpf.Attach(bpf.Options{})
	if err != nil {
		return err
	}
	ready := testutil.ChildFile(1)
	if _, err := fmt.Fprintln(ready, a.Shared()); err != nil {
		return err
	}
	kill := make([]byte, 1)
	n, err := testutil.ChildFile(0).Read(kill)
	if n == 1 {
		return unix.Kill(os.Getpid(), unix.SIGKILL)
	}
	if err != io.EOF {
		return err
	}
	return nil
}

// A holder is a process that runs udpHolder.
type holder struct {
	control *os.File
	done    chan error
	shared  bool
}

func startHolder(t *testing.T) *holder {
	t.Helper()
	stopR, stopW, err := os.Pipe()
	must(t, err)
	readyR, readyW, err := os.Pipe()
	must(t, err)
	defer readyR.Close()
	h := &holder{control: stopW, done: make(chan error, 1)}
	go func() {
		defer close(h.done)
		defer stopR.Close()
		defer readyW.Close()
		out, err := testutil.RunChild(t, "udpHolder", testutil.ChildOptions{Files: []*os.File{stopR, readyW}})
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		h.done <- err
	}()
	t.Cleanup(func() { _ = h.stop() })
	must(t, readyR.SetReadDeadline(time.Now().Add(udpPatience)))
	var shared string
	if _, err := fmt.Fscanln(readyR, &shared); err != nil {
		t.Fatalf("%v: %v", err, h.stop())
	}
	h.shared = shared == "true"
	return h
}

// kill has the process die without any cleaning up.
func (h *holder) kill() error {
	if _, err := h.control.Write([]byte{1}); err != nil {
		return err
	}
	return h.stop()
}

// stop waits for the process to end.
func (h *holder) stop() error {
	if h.done == nil {
		return nil
	}
	_ = h.control.Close()
	err := <-h.done
	h.done = nil
	return err
}

// TestUDPSharing has several processes share one attachment, which outlives
// each of them and ends with the last.
func TestUDPSharing(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	cg := testutil.EnterCgroup(t)
	one := [5]int{1, 1, 1, 1, 1}
	want := func(when string, want [5]int) {
		t.Helper()
		// A process that forks holds the links until its child executes.
		deadline := time.Now().Add(udpPatience)
		for countPrograms(t, cg.Path(), 0) != want && time.Now().Before(deadline) {
			time.Sleep(5 * time.Millisecond)
		}
		if n := countPrograms(t, cg.Path(), 0); n != want {
			t.Errorf("%s: %v programs of types %v", when, n, attachTypes)
		}
	}
	exchange := func(when string, c *sockmeta.UDPConn, send func(string) error) {
		t.Helper()
		must(t, send("payload"))
		var md sockmeta.Metadata
		if _, _, err := c.ReadMetadata(make([]byte, 64), &md); err != nil {
			t.Errorf("%s: %v", when, err)
			return
		}
		must(t, wantLoopback(&md))
	}
	want("at first", [5]int{})

	first := startHolder(t)
	if first.shared {
		t.Error("the first process shares")
	}
	want("with the first process", one)

	a, err := bpf.Attach(bpf.Options{Cgroup: cg.Path()})
	must(t, err)
	defer a.Close()
	if !a.Shared() {
		t.Error("the second process does not share")
	}
	want("with the second process", one)
	early, sendEarly, err := loopback()
	must(t, err)
	defer early.Close()
	if err := checkSupport(early, true); err != nil {
		t.Error(err)
	}
	exchange("with both", early, sendEarly)

	third := startHolder(t)
	if !third.shared {
		t.Error("the third process does not share")
	}
	want("with the third process", one)

	if err := first.kill(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("the first process ended with %v", err)
	}
	want("without the first process", one)
	exchange("without the first process", early, sendEarly)
	late, sendLate, err := loopback()
	must(t, err)
	defer late.Close()
	exchange("without the first process, newer socket", late, sendLate)

	must(t, third.stop())
	want("alone", one)
	exchange("alone", early, sendEarly)

	must(t, sendLate("payload"))
	must(t, a.Close())
	want("at last", [5]int{})
	// What came before can still be read, where it is not recvmsg that makes records.
	var md sockmeta.Metadata
	_, _, err = late.ReadMetadata(make([]byte, 64), &md)
	if !native() {
		must(t, err)
		must(t, wantLoopback(&md))
	} else if !errors.Is(err, sockmeta.ErrNoMetadata) {
		t.Errorf("what came before: %v", err)
	}
	must(t, sendLate("payload"))
	if _, _, err := late.ReadMetadata(make([]byte, 64), &md); !errors.Is(err, sockmeta.ErrNoMetadata) {
		t.Errorf("after the last has gone: %v", err)
	}
}

// TestUDPPrivate attaches programs beside others: the first to see a packet
// keeps its record, and sockets go on with whom they opted in to.
func TestUDPPrivate(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	cg := testutil.EnterCgroup(t)
	shared, err := bpf.Attach(bpf.Options{Cgroup: cg.Path()})
	must(t, err)
	defer shared.Close()
	before, sendBefore, err := loopback()
	must(t, err)
	defer before.Close()
	private, err := bpf.Attach(bpf.Options{Cgroup: cg.Path(), Private: true})
	must(t, err)
	defer private.Close()
	if private.Shared() || private.Info().Instance == shared.Info().Instance {
		t.Errorf("private attachment is %+v, the other %+v", private.Info(), shared.Info())
	}
	if n := countPrograms(t, cg.Path(), 0); n != [5]int{2, 2, 2, 2, 2} {
		t.Errorf("%v programs", n)
	}
	after, sendAfter, err := loopback()
	must(t, err)
	defer after.Close()
	for range 3 {
		for _, s := range []struct {
			name string
			c    *sockmeta.UDPConn
			send func(string) error
		}{{"before", before, sendBefore}, {"after", after, sendAfter}} {
			must(t, s.send("payload"))
			var md sockmeta.Metadata
			_, _, err := s.c.ReadMetadata(make([]byte, 64), &md)
			if err != nil {
				t.Fatalf("socket made %s: %v", s.name, err)
			}
			must(t, wantLoopback(&md))
		}
	}
}

// TestUDPTwice has a socket opt in to the programs of a cgroup, and, when others are
// attached to one below, to those: both give its datagrams records.
func TestUDPTwice(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	outer := testutil.EnterCgroup(t)
	above, err := bpf.Attach(bpf.Options{Cgroup: outer.Path()})
	must(t, err)
	defer above.Close()
	inner := testutil.EnterCgroup(t)
	once, send, err := loopback()
	must(t, err)
	defer once.Close()
	below, err := bpf.Attach(bpf.Options{Cgroup: inner.Path(), Private: true})
	must(t, err)
	defer below.Close()
	twice := sockmeta.WrapUDP(once.NetConn().(*net.UDPConn))
	for range 3 {
		must(t, send("payload"))
		var md sockmeta.Metadata
		_, _, err := twice.ReadMetadata(make([]byte, 64), &md)
		must(t, err)
		must(t, wantLoopback(&md))
		if ts, ok := md.Timestamp(); ok && ts.Year() > 2100 {
			t.Errorf("the other's handle is taken for the time %v", ts)
		}
	}
}

// TestUDPAttachedAnew has datagrams wait in a socket while the programs that saw them
// are replaced, and the socket opts in to the new ones: their handles are not those
// of any record of the new programs.
func TestUDPAttachedAnew(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	cg := testutil.EnterCgroup(t)
	must(t, onEachCPU(func() error {
		before, err := bpf.Attach(bpf.Options{Cgroup: cg.Path(), Private: true})
		if err != nil {
			return err
		}
		first, send, err := loopback()
		if err != nil {
			return err
		}
		defer first.Close()
		const waiting = 4
		for range waiting {
			if err := send("before"); err != nil {
				return err
			}
		}
		if err := before.Close(); err != nil {
			return err
		}
		after, err := bpf.Attach(bpf.Options{Cgroup: cg.Path(), Private: true})
		if err != nil {
			return err
		}
		defer after.Close()
		c := sockmeta.WrapUDP(first.NetConn().(*net.UDPConn))
		for range waiting {
			if err := send("after"); err != nil {
				return err
			}
		}
		for i := range 2 * waiting {
			b := make([]byte, 64)
			var md sockmeta.Metadata
			n, _, err := c.ReadMetadata(b, &md)
			switch string(b[:n]) {
			case "before":
				if native() && err == nil {
					err = wantLoopback(&md)
				} else if errors.Is(err, sockmeta.ErrOverrun) || errors.Is(err, sockmeta.ErrNoMetadata) {
					err = nil
				} else {
					err = fmt.Errorf("%v, %w", &md, err)
				}
				if err != nil {
					t.Errorf("datagram %d, of the programs before: %v", i, err)
				}
			case "after":
				if err != nil {
					t.Errorf("datagram %d: %v", i, err)
				}
			default:
				return err
			}
		}
		return nil
	}))
}

// TestUDPOptInFails has the kernel refuse: no memory is left for the socket's
// options. The payload has to come all the same, and the error has to be one
// about metadata.
func TestUDPOptInFails(t *testing.T) {
	testutil.RequireRoot(t)
	ns := testutil.Namespace(t)
	testutil.EnterCgroup(t)
	err := ns.Do(func() error {
		return os.WriteFile("/proc/sys/net/core/optmem_max", []byte("1"), 0)
	})
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("net.core.optmem_max is one for all network namespaces")
	}
	must(t, err)
	local := netip.MustParseAddr("127.0.0.1")
	c := listenUDP(t, ns, "udp4", udpAddr(local, 0))
	err = c.Support().Err()
	if err == nil {
		testutil.Skip(t, "the kernel did not refuse")
	}
	if !errors.Is(err, sockmeta.ErrNotSupported) {
		t.Errorf("support: %v", err)
	}
	client := dialUDP(t, ns, nil, c.LocalAddr().(*net.UDPAddr))
	send(t, client, "payload")
	var md sockmeta.Metadata
	b := make([]byte, 64)
	n, _, err := c.ReadMetadata(b, &md)
	if string(b[:n]) != "payload" || !sockmeta.IsMetadataError(err) {
		t.Errorf("%q, %v", b[:n], err)
	}
	if _, err := c.Metadata(); !sockmeta.IsMetadataError(err) {
		t.Errorf("Metadata: %v", err)
	}
}

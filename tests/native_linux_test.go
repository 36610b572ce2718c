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
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/abi"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
)

// TestNativeSupport opts in where there is a native tier, and where there is none.
func TestNativeSupport(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	ns := testutil.Namespace(t)
	testutil.EnterCgroup(t)
	a, err := bpf.Attach(bpf.Options{})
	must(t, err)
	defer a.Close()
	var fd int
	must(t, ns.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return err
	}))
	defer unix.Close(fd)
	err = bpf.EnableSocketCmsg(fd, 0)
	if a.Info().Features&abi.FeatureNative == 0 {
		if !errors.Is(err, bpf.ErrNotSupported) || !errors.Is(a.Native(), bpf.ErrNotSupported) {
			t.Errorf("opted in: %v, missing is %v", err, a.Native())
		}
		return
	}
	must(t, err)
	info, err := bpf.SocketInfo(fd)
	must(t, err)
	if want := a.Info().Features; info.Features != want || want&^abi.FeatureFaultIn != abi.FeatureNative {
		t.Errorf("features are %#x, want %#x", info.Features, want)
	}
	// Another attachment, of the same cgroup, is the same.
	b, err := bpf.Attach(bpf.Options{})
	must(t, err)
	defer b.Close()
	if !b.Shared() || a.Native() != nil || b.Native() != nil {
		t.Errorf("the second attachment is shared: %v; missing are %v and %v", b.Shared(), a.Native(), b.Native())
	}
}

// TestNativeRefused attaches where another's program of recvmsg is to be the only one:
// all else works.
func TestNativeRefused(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	attachNative(t, bpf.Options{})
	cg := testutil.Cgroup(t)
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "only", Type: ebpf.CGroupSockAddr, AttachType: ebpf.AttachCGroupUDP6Recvmsg, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
	})
	must(t, err)
	defer prog.Close()
	dir, err := os.Open(cg.Path())
	must(t, err)
	defer dir.Close()
	must(t, link.RawAttachProgram(link.RawAttachProgramOptions{Target: int(dir.Fd()), Program: prog, Attach: ebpf.AttachCGroupUDP6Recvmsg}))
	defer link.RawDetachProgram(link.RawDetachProgramOptions{Target: int(dir.Fd()), Program: prog, Attach: ebpf.AttachCGroupUDP6Recvmsg})
	a, err := bpf.Attach(bpf.Options{Cgroup: cg.Path()})
	must(t, err)
	defer a.Close()
	if f := a.Info().Features; f != 0 || !errors.Is(a.Native(), bpf.ErrNotSupported) || !strings.Contains(a.Native().Error(), "recvmsg6") {
		t.Errorf("features are %#x, missing is %v", f, a.Native())
	}
}

// TestNativeFull attaches where others' programs fill the function of the kernel that
// the one which faults in is for: records come all the same.
func TestNativeFull(t *testing.T) {
	lab := newNativeLab(t)
	k := udpKinds(lab.Pair)[0]
	const most = 38 // BPF_MAX_TRAMP_LINKS
	n := 0
	for ; n < most; n++ {
		if err := fillRecvmsg(t); errors.Is(err, unix.E2BIG) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if n == most {
		t.Fatalf("there is room for %d programs more", n)
	}
	cg := testutil.Cgroup(t)
	a, err := bpf.Attach(bpf.Options{Cgroup: cg.Path()})
	must(t, err)
	defer a.Close()
	b, err := bpf.Attach(bpf.Options{Cgroup: cg.Path()})
	must(t, err)
	defer b.Close()
	if a.Info().Features != abi.FeatureNative || a.Native() != nil || b.Native() != nil || !b.Shared() {
		t.Errorf("features are %#x, missing are %v and %v, shared %v", a.Info().Features, a.Native(), b.Native(), b.Shared())
	}
	must(t, lab.a.Close())
	leave, err := cg.Enter()
	must(t, err)
	defer leave()
	attachEchoUDP(t, lab.Pair)
	fd := lab.open(k)
	send(t, k.dial(t, lab.Pair), numbered(1))
	r, err := receiveFrom(fd, true, 0)
	lab.got(t, r, err, 1)
}

// fillRecvmsg attaches a program that does nothing to what sockmeta_fault_in is
// attached to.
func fillRecvmsg(t testing.TB) error {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "fill", Type: ebpf.LSM, AttachType: ebpf.AttachLSMMac, AttachTo: "socket_recvmsg", License: "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return err
	}
	defer prog.Close()
	l, err := link.AttachLSM(link.LSMOptions{Program: prog})
	if err != nil {
		return err
	}
	t.Cleanup(func() { _ = l.Close() })
	return nil
}

// TestNativeReceive receives in all ways.
func TestNativeReceive(t *testing.T) {
	lab := newNativeLab(t)
	attachEchoUDP(t, lab.Pair)
	for _, k := range udpKinds(lab.Pair) {
		t.Run(k.name, func(t *testing.T) {
			lab.t = t
			fd, client := lab.open(k), k.dial(t, lab.Pair)
			id := uint64(100)
			next := func() uint64 {
				id++
				send(t, client, numbered(id))
				return id
			}
			for _, name := range []bool{true, false} {
				for range 5 {
					want := next()
					r, err := receiveFrom(fd, name, 0)
					lab.got(t, r, err, want)
					if (r.namelen != 0) != name {
						t.Errorf("address of %d bytes", r.namelen)
					}
				}
				// The same again and again, and then for good.
				want := next()
				for range 3 {
					r, err := receiveFrom(fd, name, unix.MSG_PEEK)
					lab.got(t, r, err, want)
				}
				r, err := receiveFrom(fd, name, 0)
				lab.got(t, r, err, want)
				// Less of the payload.
				next()
				r, err = receiveFrom(fd, name, unix.MSG_TRUNC)
				must(t, err)
				lab.wantRecord(t, r.payload, r.oob)
			}
			// Those who take no control messages.
			want := next()
			b := make([]byte, 64)
			n, err := unix.Read(fd, b)
			if err != nil || string(b[:n]) != numbered(want) {
				t.Errorf("read %x, %v", b[:n], err)
			}
			want = next()
			n, _, err = unix.Recvfrom(fd, b, 0)
			if err != nil || string(b[:n]) != numbered(want) {
				t.Errorf("received %x, %v", b[:n], err)
			}
			// What is not a datagram.
			if _, err := receiveFrom(fd, true, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT); !errors.Is(err, unix.EAGAIN) {
				t.Errorf("the error queue: %v", err)
			}
			r, err := receiveFrom(fd, true, unix.MSG_DONTWAIT)
			if !errors.Is(err, unix.EAGAIN) {
				t.Errorf("received %x, %v", r.payload, err)
			}
		})
	}
}

// TestNativeChecksum has datagrams with a wrong checksum in the queue, which recvmsg
// takes, drops and goes on from: the record is of what it returns.
func TestNativeChecksum(t *testing.T) {
	lab := newNativeLab(t)
	attachEchoUDP(t, lab.Pair)
	k := udpKinds(lab.Pair)[0]
	fd, client := lab.open(k), k.dial(t, lab.Pair)
	var raw int
	must(t, lab.Client.Do(func() (err error) {
		raw, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP)
		return err
	}))
	defer unix.Close(raw)
	to := socketAddr(unix.AF_INET, netip.AddrPortFrom(k.server, 0))
	for id := range uint64(20) {
		for i := range uint64(3) {
			payload := numbered(1000 + 10*id + i)
			b := binary.BigEndian.AppendUint16(nil, clientPort)
			b = binary.BigEndian.AppendUint16(b, serverPort)
			b = binary.BigEndian.AppendUint16(b, uint16(8+len(payload)))
			b = binary.BigEndian.AppendUint16(b, 0xBAD)
			must(t, unix.Sendto(raw, append(b, payload...), 0, to))
		}
		send(t, client, numbered(id))
		arrived(t, lab.Pair, k)
		r, err := receiveFrom(fd, true, 0)
		lab.got(t, r, err, id)
	}
	if n := inErrors(t, lab.Pair); n < 20*3 {
		t.Errorf("%d datagrams had a wrong checksum, want %d", n, 20*3)
	}
}

// inErrors is how many datagrams the server has found to have a wrong checksum.
func inErrors(t testing.TB, p *netlab.Pair) (n int) {
	t.Helper()
	must(t, p.Server.Do(func() error {
		b, err := os.ReadFile("/proc/thread-self/net/snmp")
		if err != nil {
			return err
		}
		var names []string
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if f[0] != "Udp:" {
				continue
			}
			if names == nil {
				names = f
				continue
			}
			n, err = strconv.Atoi(f[slices.Index(names, "InCsumErrors")])
		}
		return err
	}))
	return n
}

// TestNativeNotAsked has sockets that did not ask for records: those that did not opt
// in, and those that take handles.
func TestNativeNotAsked(t *testing.T) {
	lab := newNativeLab(t)
	attachEchoUDP(t, lab.Pair)
	k := udpKinds(lab.Pair)[0]
	fd, client := lab.openFD(k), k.dial(t, lab.Pair)
	plain := func() {
		t.Helper()
		send(t, client, numbered(7))
		r, err := receiveFrom(fd, true, 0)
		must(t, err)
		if len(r.oob) != 0 || r.flags != 0 {
			t.Errorf("control messages %x, flags %#x", r.oob, r.flags)
		}
	}
	plain()
	must(t, bpf.EnableSocket(fd, 0))
	plain()
	must(t, bpf.EnableSocketCmsg(fd, 0))
	send(t, client, numbered(8))
	r, err := receiveFrom(fd, true, 0)
	lab.got(t, r, err, 8)
	must(t, bpf.EnableSocket(fd, 0))
	plain()
}

// TestNativeMessages has the kernel's own control messages beside the record.
func TestNativeMessages(t *testing.T) {
	lab := newNativeLab(t)
	attachEchoUDP(t, lab.Pair)
	for _, k := range udpKinds(lab.Pair) {
		t.Run(k.name, func(t *testing.T) {
			lab.t = t
			fd, plain := lab.open(k), 0
			opts := append(packetOptions(k),
				sockOption{level: unix.SOL_SOCKET, name: unix.SO_TIMESTAMPNS_NEW, value: 1},
				sockOption{level: unix.SOL_SOCKET, name: unix.SO_RXQ_OVFL, value: 1})
			must(t, setOptions(fd, opts))
			client := k.dial(t, lab.Pair)
			// The kernel begins to take times soon after the first socket asks.
			for id := uint64(1); plain == 0 || id < 10; id++ {
				send(t, client, numbered(id))
				r, err := receiveFrom(fd, true, 0)
				md := lab.got(t, r, err, id)
				b, ok := cmsg.Find(r.oob, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS_NEW)
				if !ok {
					t.Fatalf("no time in %x", r.oob)
				}
				at := time.Unix(int64(idOf(b)), int64(idOf(b[8:])))
				if ago := time.Since(at); ago < -time.Minute || ago > time.Minute {
					t.Errorf("time is %v ago", ago)
				}
				if ts, ok := md.Timestamp(); ok {
					if !ts.Equal(at) {
						t.Errorf("time is %v, in the record %v", at, ts)
					}
					plain++
				}
				if id > 1000 {
					t.Fatal("no record has a time")
				}
			}
		})
	}
}

// TestNativeBuffers has buffers for control messages of every length: there is a whole
// record or none and MSG_CTRUNC, and the payload always.
func TestNativeBuffers(t *testing.T) {
	lab := newNativeLab(t)
	attachEchoUDP(t, lab.Pair)
	for _, k := range udpKinds(lab.Pair)[:2] {
		lab.t = t
		fd, client := lab.open(k), k.dial(t, lab.Pair)
		send(t, client, numbered(1))
		r, err := receiveFrom(fd, true, 0)
		lab.got(t, r, err, 1)
		whole := len(r.oob)
		var md cmsg.Metadata
		_, err = cmsg.FindMetadata(r.oob, &md)
		must(t, err)
		data, _ := cmsg.Find(r.oob, cmsg.SOL_BPF, cmsg.SCM_RECORD)
		need := cmsg.Len(len(data))
		for n := range whole + 17 {
			for _, name := range []bool{true, false} {
				id := uint64(1000 + n)
				send(t, client, numbered(id))
				control := bytes.Repeat([]byte{0xA5}, whole+64)
				r, err := recvmsg(fd, unsafe.Pointer(&control[0]), n, name, 0)
				must(t, err)
				if string(r.payload) != numbered(id) {
					t.Fatalf("%d bytes: payload is %x", n, r.payload)
				}
				got, recErr := recordID(r.oob)
				if n >= need {
					if recErr != nil || got != id || r.flags != 0 {
						t.Errorf("%d bytes: record of %d, %v, flags %#x", n, got, recErr, r.flags)
					}
				} else if len(r.oob) != 0 || r.flags != unix.MSG_CTRUNC {
					t.Errorf("%d bytes: control messages %x, flags %#x", n, r.oob, r.flags)
				}
				if rest := control[n:]; !bytes.Equal(rest, bytes.Repeat([]byte{0xA5}, len(rest))) {
					t.Errorf("%d bytes: written behind the buffer: %x", n, rest)
				}
			}
		}
		// Without a buffer at all.
		send(t, client, numbered(5))
		r, err = recvmsg(fd, nil, 0, true, 0)
		must(t, err)
		if string(r.payload) != numbered(5) || r.flags != unix.MSG_CTRUNC {
			t.Errorf("payload %x, flags %#x", r.payload, r.flags)
		}
	}
}

// TestNativeAreas receives what producers of all kinds wrote.
func TestNativeAreas(t *testing.T) {
	testutil.RequireRoot(t)
	for _, tt := range []struct {
		name   string
		area   []byte
		format cmsg.Format
		flags  cmsg.Flags
		want   []byte
	}{
		{name: "none"},
		{name: "anchored", area: anchored(cmsg.FormatTLV, 16, 2, 1, 2), format: cmsg.FormatTLV},
		{name: "raw", area: anchored(cmsg.FormatRaw, 1, 2, 3, 4), format: cmsg.FormatRaw},
		{name: "unanchored", area: []byte{16, 2, 1, 2}, format: cmsg.FormatTLV, flags: cmsg.FlagUnanchored},
		{name: "largest", area: anchored(cmsg.FormatRaw, bytes.Repeat([]byte{7}, 200)...), format: cmsg.FormatRaw},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lab := newNativeLab(t)
			if tt.area != nil {
				attachArea(t, lab.Server, lab.ServerIf, tt.area)
			}
			k := udpKinds(lab.Pair)[0]
			fd, client := lab.open(k), k.dial(t, lab.Pair)
			for range 5 {
				send(t, client, "payload")
				r, err := receiveFrom(fd, true, 0)
				must(t, err)
				var md cmsg.Metadata
				ok, err := cmsg.FindMetadata(r.oob, &md)
				must(t, err)
				if !ok || md.Format() != tt.format || md.Flags() != tt.flags || !slices.Equal(md.Raw(), tt.area) {
					t.Errorf("record %v: %v, %v, area %x", ok, md.Format(), md.Flags(), md.Raw())
				}
			}
		})
	}
}

// TestNativeAggregate receives several datagrams at once.
func TestNativeAggregate(t *testing.T) {
	const segment, segments = 100, 5
	lab := newNativeLab(t)
	attachArea(t, lab.Server, lab.ServerIf, anchored(cmsg.FormatTLV, 16, 2, 1, 2))
	for _, k := range udpKinds(lab.Pair) {
		t.Run(k.name, func(t *testing.T) {
			lab.t = t
			fd, client := lab.open(k), k.dial(t, lab.Pair)
			must(t, unix.SetsockoptInt(fd, solUDP, udpGRO, 1))
			withFD(t, client, func(fd int) error { return unix.SetsockoptInt(fd, solUDP, udpSegment, segment) })
			send(t, client, strings.Repeat("0123456789", segment*segments/10))
			for got := 0; got < segment*segments; {
				r, err := receiveFrom(fd, true, 0)
				must(t, err)
				got += len(r.payload)
				var md cmsg.Metadata
				ok, err := cmsg.FindMetadata(r.oob, &md)
				must(t, err)
				merged := len(r.payload) > segment
				if _, size := cmsg.Find(r.oob, solUDP, udpGRO); !ok || md.Flags().Has(cmsg.FlagAggregate) != merged || size != merged {
					t.Errorf("%d bytes: record %v, %v, size %v", len(r.payload), ok, md.Flags(), size)
				}
			}
		})
	}
}

// TestNativeMmsg receives several datagrams by one call.
func TestNativeMmsg(t *testing.T) {
	lab := newNativeLab(t)
	attachEchoUDP(t, lab.Pair)
	for _, k := range udpKinds(lab.Pair) {
		t.Run(k.name, func(t *testing.T) {
			lab.t = t
			fd, client := lab.open(k), k.dial(t, lab.Pair)
			const count = 8
			for id := range uint64(count) {
				send(t, client, numbered(id))
			}
			arrived(t, lab.Pair, k)
			b := newRecvBatch(count, 1024, true)
			for got := 0; got < count; {
				n, err := b.recvmmsg(fd)
				must(t, err)
				for i := range n {
					lab.got(t, b.received(i), nil, uint64(got))
					got++
				}
			}
		})
	}
}

// TestNativeMmsgMemory receives several datagrams by one call into buffers that nobody
// has touched: the kernel makes sure of the first one's alone (security_socket_recvmsg
// in net/socket.c), and says so of the others.
func TestNativeMmsgMemory(t *testing.T) {
	lab := newNativeLab(t)
	attachEchoUDP(t, lab.Pair)
	k := udpKinds(lab.Pair)[0]
	fd, client := lab.open(k), k.dial(t, lab.Pair)
	const count = 4
	for id := range uint64(count) {
		send(t, client, numbered(id))
	}
	arrived(t, lab.Pair, k)
	b := newRecvBatch(count, 512, true)
	for i := range count {
		b.controls[i] = pages(t, 1, unix.PROT_READ|unix.PROT_WRITE)
		b.hdrs[i].hdr.Control = &b.controls[i][0]
	}
	n, err := b.recvmmsg(fd)
	must(t, err)
	if n != count {
		t.Fatalf("%d datagrams, want %d", n, count)
	}
	lab.got(t, b.received(0), nil, 0)
	for i := 1; i < count; i++ {
		r := b.received(i)
		if string(r.payload) != numbered(uint64(i)) || len(r.oob) != 0 || r.flags != unix.MSG_CTRUNC {
			t.Errorf("payload %x, control messages %x, flags %#x", r.payload, r.oob, r.flags)
		}
	}
}

// TestNativeIOUring has io_uring receive, in the task that asks for it and in its
// workers, what is there already and what it has to wait for.
func TestNativeIOUring(t *testing.T) {
	r, err := newRing(8)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		t.Skipf("the kernel allows no io_uring: %v", err)
	}
	must(t, err)
	defer r.close()
	lab := newNativeLab(t)
	attachEchoUDP(t, lab.Pair)
	for _, k := range udpKinds(lab.Pair) {
		for _, flags := range []uint8{0, iosqeAsync} {
			for _, wait := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, flags %#x, waits %v", k.name, flags, wait), func(t *testing.T) {
					lab.t = t
					fd, client := lab.open(k), k.dial(t, lab.Pair)
					b := newRecvBatch(r.entries, 1024, true)
					for round := range uint64(3) {
						b.reset()
						first := round * 100
						burst := func() {
							for i := range uint64(r.entries) {
								send(t, client, numbered(first+i))
							}
						}
						if wait {
							time.AfterFunc(20*time.Millisecond, burst)
						} else {
							burst()
						}
						must(t, r.recvmsg(fd, b, flags))
						seen := make(map[uint64]bool)
						for i := range r.entries {
							m := b.received(i)
							id := idOf(m.payload)
							lab.got(t, m, nil, id)
							seen[id] = true
						}
						if len(seen) != r.entries {
							t.Errorf("%d datagrams, want %d", len(seen), r.entries)
						}
					}
				})
			}
		}
	}
}

// TestNativeConcurrent has many tasks receive from many sockets, all of which share
// sockets with others; and, there being as many, a hash bucket of the module's.
func TestNativeConcurrent(t *testing.T) {
	const sockets, tasks = 4, 64
	lab := newNativeLab(t)
	attachEchoUDP(t, lab.Pair)
	datagrams := testutil.Scale(20_000)
	k := udpKinds(lab.Pair)[2]
	var fds []int
	var clients []*net.UDPConn
	for i := range sockets {
		fd, client := lab.openPort(serverPort+1+i), lab.dialPort(k, serverPort+1+i)
		must(t, bpf.EnableSocketCmsg(fd, 0))
		fds, clients = append(fds, fd), append(clients, client)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var total, lost int
	for task := range tasks {
		wg.Go(func() {
			var n, none int
			for {
				r, err := receiveFrom(fds[(task+n)%sockets], task&1 == 0, 0)
				if err != nil || len(r.payload) < 8 || idOf(r.payload) == 0 {
					break
				}
				n++
				if r.flags != 0 {
					t.Errorf("flags are %#x", r.flags)
				}
				if id, err := recordID(r.oob); err != nil {
					none++
				} else if id != idOf(r.payload) {
					t.Errorf("record of %d, payload of %d", id, idOf(r.payload))
				}
			}
			mu.Lock()
			defer mu.Unlock()
			total, lost = total+n, lost+none
		})
	}
	for i := range datagrams {
		send(t, clients[i%sockets], numbered(uint64(i+1)))
		if i%64 == 63 {
			// Let them catch up, so that most arrive.
			time.Sleep(time.Millisecond)
		}
	}
	// Each ends with the first of these.
	for range tasks {
		for _, c := range clients {
			send(t, c, numbered(0))
		}
	}
	wg.Wait()
	if lost != 0 || total < datagrams/2 {
		t.Errorf("%d datagrams of %d, %d of them without record", total, datagrams, lost)
	}
}

// openPort makes a blocking socket for both protocols, which has not opted in.
func (lab *nativeLab) openPort(port int) int {
	lab.t.Helper()
	var fd int
	must(lab.t, lab.Server.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return err
	}))
	lab.t.Cleanup(func() { _ = unix.Close(fd) })
	must(lab.t, unix.Bind(fd, &unix.SockaddrInet6{Port: port}))
	return fd
}

func (lab *nativeLab) dialPort(k udpKind, port int) *net.UDPConn {
	return dialUDP(lab.t, lab.Client, nil, udpAddr(k.server, port))
}

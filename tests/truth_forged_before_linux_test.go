// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/binary"
	"net"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/abi"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// TestTruthForgedBefore has datagrams wait when their socket opts in, whose sender made
// up their times: those of the packets that it sends later, as far as it can foresee
// them. It knows the slots, and the clock to less than a unit.
func TestTruthForgedBefore(t *testing.T) {
	testutil.RequireRoot(t)
	if native() {
		t.Skip("recvmsg makes the records")
	}
	cpus := readCPUs(t, "online")
	if len(cpus) < 2 {
		t.Skip("needs 2 CPUs: datagrams come while others are read")
	}
	pair := testutil.Pair(t)
	ns := pair.Client
	must(t, netlab.SetUp(ns, "lo"))
	cg := testutil.EnterCgroup(t)
	a, err := bpf.Attach(bpf.Options{Cgroup: cg.Path()})
	must(t, err)
	defer a.Close()
	f := newForeseer(t, ns, pair.ClientIf, a.Info().SlotsPerCPU)

	made, hits := 0, 0
	for range testutil.Scale(20) {
		var plain *net.UDPConn
		must(t, ns.Do(func() error {
			dev, err := net.InterfaceByName(pair.ClientIf)
			if err != nil {
				return err
			}
			plain, err = net.ListenMulticastUDP("udp4", dev, &net.UDPAddr{IP: net.IP(f.group[:])})
			return err
		}))
		queueAll(t, plain)
		began := make(chan uint64)
		done := make(chan struct{})
		go func() {
			defer close(done)
			f.run(t, cpus[1], plain.LocalAddr().(*net.UDPAddr).Port, began)
		}()
		start := <-began
		c := sockmeta.WrapUDP(plain)
		ms := make([]sockmeta.Message, 2*f.count)
		for i := range ms {
			ms[i].Buf = make([]byte, 16)
		}
		// In the middle of what comes.
		for monotonic(t) < start+f.every*uint64(f.count)/2 {
		}
		n, err := c.ReadBatchMetadata(ms, unix.MSG_DONTWAIT)
		must(t, err)
		<-done
		for _, m := range ms[:n] {
			if m.Buf[0] != 'F' {
				continue
			}
			made++
			if m.Err == nil {
				hits++
				t.Errorf("a datagram from before the socket opted in has the record %v", &m.Metadata)
			}
		}
		must(t, c.Close())
	}
	if made == 0 {
		t.Error("no datagram with a made up handle came")
	}
	t.Logf("%d made up handles, %d records", made, hits)
}

// A foreseer makes up handles for packets that it sends later.
type foreseer struct {
	group   [4]byte
	every   uint64 // ns between two packets
	count   int
	slots   uint64 // a CPU
	own     int    // a socket that opted in, which shows what handles are given
	forging int
	honest  int
	itself  unix.Sockaddr
}

func newForeseer(t *testing.T, ns *netlab.Namespace, dev string, slots uint32) *foreseer {
	t.Helper()
	f := &foreseer{group: [4]byte{239, 1, 1, 1}, every: 12000, count: 150, slots: uint64(slots)}
	must(t, ns.Do(func() (err error) {
		for _, fd := range []*int{&f.own, &f.forging, &f.honest} {
			if *fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
				return err
			}
			t.Cleanup(func() { _ = unix.Close(*fd) })
		}
		i, err := net.InterfaceByName(dev)
		if err != nil {
			return err
		}
		for _, fd := range []int{f.forging, f.honest} {
			if err := unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(i.Index)}); err != nil {
				return err
			}
		}
		return unix.Bind(f.own, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	}))
	var err error
	f.itself, err = unix.Getsockname(f.own)
	must(t, err)
	must(t, bpf.EnableSocket(f.own, 0))
	must(t, unix.SetsockoptInt(f.own, unix.SOL_SOCKET, unix.SO_TIMESTAMPING, unix.SOF_TIMESTAMPING_SOFTWARE))
	must(t, setTxTime(f.forging, txTime{clock: unix.CLOCK_REALTIME}))
	return f
}

// run tells when the packets will come that it has made up handles for, and sends them.
func (f *foreseer) run(t *testing.T, cpu, port int, began chan<- uint64) {
	// What loops back is received on the CPU that sends. The thread ends with the
	// goroutine.
	runtime.LockOSThread()
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		t.Error(err)
	}
	to := &unix.SockaddrInet4{Port: port, Addr: f.group}
	b, oob := make([]byte, 64), make([]byte, 256)
	if err := unix.Sendto(f.honest, []byte("probe"), 0, f.itself); err != nil {
		t.Error(err)
	}
	_, n, _, _, err := unix.Recvmsg(f.own, b, oob, 0)
	if err != nil {
		t.Error(err)
	}
	shown, err := handleIn(oob[:n])
	if err != nil {
		t.Error(err)
	}
	ring := shown & abi.IndexMask &^ (f.slots - 1)
	start := (monotonic(t) + uint64(4*time.Millisecond)) &^ 4095
	for i := range f.count {
		const onTheWay = 1500 // ns
		unit := (start + uint64(i)*f.every + onTheWay) >> 12
		handle := abi.HandleBit | unit<<24&(abi.HandleBit/2-1) | ring | (shown+1+uint64(i))&(f.slots-1)
		oob := cmsg.Append(nil, unix.SOL_SOCKET, unix.SCM_TXTIME, binary.NativeEndian.AppendUint64(nil, handle))
		if err := unix.Sendmsg(f.forging, []byte{'F', byte(i)}, oob, to, 0); err != nil {
			t.Error(err)
		}
	}
	began <- start
	for i := range f.count {
		for monotonic(t) < start+uint64(i)*f.every {
		}
		if err := unix.Sendto(f.honest, []byte{'H', byte(i)}, 0, to); err != nil {
			t.Error(err)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/abi"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// sendNumber sends a datagram with a number of the caller's making.
func sendNumber(t testing.TB, lab *txLab, c *sockmeta.UDPConn, b []byte, number uint64) {
	t.Helper()
	oob := cmsg.Append(nil, unix.SOL_SOCKET, unix.SCM_TXTIME, binary.NativeEndian.AppendUint64(nil, number))
	_, _, err := c.NetConn().(*net.UDPConn).WriteMsgUDPAddrPort(b, oob, lab.to4())
	must(t, err)
}

// register makes the socket one that sends by number, and says by which.
func register(t testing.TB, slots *bpf.TxSlots, c *sockmeta.UDPConn) (info abi.TxInfo) {
	t.Helper()
	must(t, onSocket(c, func(fd int) (err error) {
		if info, err = slots.Register(fd); err == nil {
			err = bpf.EnableTxTime(fd)
		}
		return err
	}))
	return info
}

// TestForgedNumbers has packets with a number that leads nowhere, or to what is
// another's, leave at once and without metadata, and be counted.
func TestForgedNumbers(t *testing.T) {
	testutil.Leaks(t)
	lab := newTxLab(t, bpf.DefaultPolicy())
	c, other := lab.udp(t, "udp4", nil), lab.udp(t, "udp4", nil)
	slots, err := bpf.ProcessTxSlots()
	must(t, err)
	info, otherInfo := register(t, slots, c), register(t, slots, other)
	if info.Proc == 0 || info.Socket == otherInfo.Socket {
		t.Fatalf("%+v, %+v", info, otherInfo)
	}
	take := func() int {
		t.Helper()
		i, ok := slots.Take()
		if !ok {
			t.Fatal("no slot")
		}
		return i
	}
	_, md := lab.datagram(t)
	var want bpf.Counts
	var sent uint64
	try := func(name string, number uint64) {
		t.Helper()
		b := lab.plain()
		sendNumber(t, lab, c, b, number)
		lab.arrives(t, b)
		sent++
		got, err := lab.attachment.Counts()
		must(t, err)
		if got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}

	// Number by number, what makes it one of this socket's.
	slot := take()
	number := slots.Fill(slot, &otherInfo, md.Record())
	want.Foreign++
	try("of another socket", number)
	number = slots.Fill(slot, &info, md.Record())
	want.Foreign++
	try("of another process", number^1<<22)
	want.Stale++
	try("used more often", number+1<<12)
	want.Stale++
	try("used less often", number-1<<12)
	want.Stale++
	try("another slot", number^1<<11)
	slots.Fill(slot, &info, md.Record())
	want.Stale++
	try("filled again", number)
	slots.Release(slot)

	// And the right one, to show that the others failed for their reasons.
	b, md := lab.datagram(t)
	number = slots.Fill(slot, &info, md.Record())
	sendNumber(t, lab, c, b, number)
	lab.arrives(t, b)
	want.Sent++
	lab.expect(t, 1, sent)

	// What the slot holds is no record.
	for name, spoil := range map[string]func(r *abi.Record){
		"version 0":         func(r *abi.Record) { r.Version = 0 },
		"newer version":     func(r *abi.Record) { r.Version++ },
		"area too long":     func(r *abi.Record) { r.AreaLen = 253 },
		"area not in words": func(r *abi.Record) { r.AreaLen = 3 },
		"unknown format":    func(r *abi.Record) { r.Format = 9 },
	} {
		rec := *md.Record()
		spoil(&rec)
		want.Malformed++
		try(name, slots.Fill(slot, &info, &rec))
	}
	lab.expect(t, 1, sent)
	tc, cgroup := lab.wire.counts(t)
	if tc.Tstamp != 0 || cgroup.Tstamp != 0 {
		t.Errorf("%d packets left with a time", tc.Tstamp+cgroup.Tstamp)
	}
}

// TestRandomNumbers sends numbers of every size. Those that could be times stay.
func TestRandomNumbers(t *testing.T) {
	lab := newTxLab(t, bpf.DefaultPolicy())
	c := lab.udp(t, "udp4", nil)
	slots, err := bpf.ProcessTxSlots()
	must(t, err)
	register(t, slots, c)
	random := rand.New(rand.NewPCG(3, 4))
	count := testutil.Scale(20_000)
	var small, times uint64
	for range count {
		number := random.Uint64() >> (1 + random.IntN(63))
		switch {
		case number == 0:
		case number < 1<<32:
			small++
		default:
			times++
		}
		b := lab.plain()
		sendNumber(t, lab, c, b, number)
		lab.arrives(t, b)
	}
	lab.expect(t, 0, uint64(count))
	got, err := lab.attachment.Counts()
	must(t, err)
	if got.Stale+got.Foreign != small || got.Sent != 0 || small == 0 {
		t.Errorf("%+v, want %d", got, small)
	}
	if tc, _ := lab.wire.counts(t); tc.Tstamp != times {
		t.Errorf("%d packets with a time, want %d", tc.Tstamp, times)
	}
}

// TestSlotsNowhere registers memory that is not there.
func TestSlotsNowhere(t *testing.T) {
	lab := newTxLab(t, bpf.DefaultPolicy())
	c := lab.udp(t, "udp4", nil)
	slots, err := bpf.ProcessTxSlots()
	must(t, err)
	for _, addr := range []uint64{0, 1, 1 << 47, 1<<64 - 1<<12, 1<<64 - 1} {
		req := binary.NativeEndian.AppendUint32(nil, abi.ABI)
		req = binary.NativeEndian.AppendUint32(req, 1)
		req = binary.NativeEndian.AppendUint64(req, addr)
		var info abi.TxInfo
		control(t, c, func(fd uintptr) {
			if errno := rawSetsockopt(fd, abi.SOL_BPF, abi.OptTxSlots, req); errno != 0 {
				t.Fatal(errno)
			}
			must(t, bpf.EnableTxTime(int(fd)))
			info, err = bpf.SocketTxInfo(int(fd))
			must(t, err)
		})
		b := lab.plain()
		sendNumber(t, lab, c, b, uint64(info.Proc)<<22|1<<12)
		lab.arrives(t, b)
		// Beyond the one slot that there is.
		b = lab.plain()
		sendNumber(t, lab, c, b, uint64(info.Proc)<<22|1<<12|1)
		lab.arrives(t, b)
	}
	if got, err := lab.attachment.Counts(); err != nil || got != (bpf.Counts{Stale: 5, Foreign: 5}) {
		t.Errorf("%+v, %v", got, err)
	}
	lab.expect(t, 0, 10)

	// The socket is as good as before.
	register(t, slots, c)
	b, md := lab.datagram(t)
	_, err = c.WriteMetadata(b, md, lab.to4())
	must(t, err)
	lab.arrives(t, b)
	lab.expect(t, 1, 10)
}

// TestManyProcesses registers more than there is room for: the first one's numbers
// are nobody's from then on, and never those of the one in its place.
func TestManyProcesses(t *testing.T) {
	lab := newTxLab(t, bpf.DefaultPolicy())
	c := lab.udp(t, "udp4", nil)
	seen := make(map[uint32]bool)
	// To the kernel, other memory is another registration.
	mem := make([]abi.TxSlot, 1100)
	for i := range mem {
		req := binary.NativeEndian.AppendUint32(nil, abi.ABI)
		req = binary.NativeEndian.AppendUint32(req, 1)
		req = binary.NativeEndian.AppendUint64(req, uint64(uintptr(unsafe.Pointer(&mem[i]))))
		control(t, c, func(fd uintptr) {
			if errno := rawSetsockopt(fd, abi.SOL_BPF, abi.OptTxSlots, req); errno != 0 {
				t.Fatal(errno)
			}
			info, err := bpf.SocketTxInfo(int(fd))
			must(t, err)
			if info.Proc == 0 || info.Proc >= 1024 {
				t.Fatalf("process %d", info.Proc)
			}
			if i < 1000 && seen[info.Proc] {
				t.Fatalf("number %d is given again after %d", info.Proc, i)
			}
			seen[info.Proc] = true
		})
	}
}

// TestTransmitOptionSizes sets the options with random content of every length.
func TestTransmitOptionSizes(t *testing.T) {
	lab := newSockoptLab(t)
	random := rand.New(rand.NewPCG(5, 6))
	garbage := make([]byte, maxOptlen)
	for i := range garbage {
		garbage[i] = byte(random.Uint32())
	}
	garbage[0] = 0 // no record's version
	control(t, lab.tcp, func(fd uintptr) {
		for size := 1; size <= maxOptlen; size++ {
			want := unix.EINVAL
			if size > int(unsafe.Sizeof(abi.Record{})) {
				want = unix.EMSGSIZE
			}
			if errno := rawSetsockopt(fd, abi.SOL_BPF, abi.OptTxRecord, garbage[:size]); errno != want {
				t.Fatalf("TCP record, %d bytes: errno %v, want %v", size, errno, want)
			}
		}
	})
	control(t, lab.udp, func(fd uintptr) {
		for size := 0; size <= maxOptlen; size++ {
			errno := rawSetsockopt(fd, abi.SOL_BPF, abi.OptTxSlots, garbage[:size])
			// Of an ABI that nobody answers for, or of no size or count.
			if errno != unix.EINVAL && !slices.Contains(unanswered, errno) {
				t.Fatalf("UDP slots, %d bytes: errno %v", size, errno)
			}
		}
	})
	// Each option is for one protocol, and none for sockets that did not opt in.
	value := make([]byte, 16)
	control(t, lab.udp, func(fd uintptr) {
		if errno := rawSetsockopt(fd, abi.SOL_BPF, abi.OptTxRecord, value); !slices.Contains(unanswered, errno) {
			t.Errorf("record of a UDP socket: %v", errno)
		}
	})
	control(t, lab.tcp, func(fd uintptr) {
		if errno := rawSetsockopt(fd, abi.SOL_BPF, abi.OptTxSlots, value); !slices.Contains(unanswered, errno) {
			t.Errorf("slots of a TCP socket: %v", errno)
		}
	})
	control(t, lab.plain, func(fd uintptr) {
		for _, opt := range []int{abi.OptTxRecord, abi.OptTxSlots} {
			if errno := rawSetsockopt(fd, abi.SOL_BPF, opt, value); !slices.Contains(unanswered, errno) {
				t.Errorf("option %d of a plain socket: %v", opt, errno)
			}
		}
	})
	if info, err := socketTxInfo(lab.udp); err != nil || info.Proc != 0 {
		t.Errorf("%+v, %v", info, err)
	}
}

func socketTxInfo(c *sockmeta.UDPConn) (info abi.TxInfo, err error) {
	err = onSocket(c, func(fd int) (err error) {
		info, err = bpf.SocketTxInfo(fd)
		return err
	})
	return info, err
}

// TestRecordSizes sets records of a connection with every length of area, each cut
// at every length.
func TestRecordSizes(t *testing.T) {
	lab := newSockoptLab(t)
	control(t, lab.tcp, func(fd uintptr) {
		for area := 0; area <= cmsg.AreaMax; area += 4 {
			var md sockmeta.Metadata
			must(t, md.SetRaw(make([]byte, area), cmsg.FormatRaw))
			md.SetPriority(1)
			record, err := md.MarshalBinary()
			must(t, err)
			for size := 1; size <= len(record); size++ {
				want := unix.Errno(0)
				if size < len(record) {
					want = unix.EINVAL
				}
				if errno := rawSetsockopt(fd, abi.SOL_BPF, abi.OptTxRecord, record[:size]); errno != want {
					t.Fatalf("%d of %d bytes: errno %v, want %v", size, len(record), errno, want)
				}
			}
			// Bytes behind it do not matter.
			longer := append(bytes.Clone(record), make([]byte, 320-len(record))...)
			if errno := rawSetsockopt(fd, abi.SOL_BPF, abi.OptTxRecord, longer); errno != 0 {
				t.Fatalf("%d bytes with some behind: %v", len(record), errno)
			}
		}
		for range 2 {
			if errno := rawSetsockopt(fd, abi.SOL_BPF, abi.OptTxRecord, nil); errno != 0 {
				t.Fatalf("no bytes: %v", errno)
			}
		}
	})
}

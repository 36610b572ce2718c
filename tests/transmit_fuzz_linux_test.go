// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/abi"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testprog"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
)

var fuzzPolicy = bpf.Policy{MarkMask: 0xff00, MaxPriority: 10, LaunchTimes: true}

// fuzzWire is a host of one's own, whose packets are looked at as they leave.
type fuzzWire struct {
	*netlab.Namespace
	attachment *bpf.Attachment
	within     func(func() error)
	state      *ebpf.Variable
}

func newFuzzWire(f *testing.F) *fuzzWire {
	f.Helper()
	w := new(fuzzWire)
	w.attachment, w.within = fuzzAttachment(f, fuzzPolicy)
	w.Namespace = testutil.Namespace(f)
	maps, err := w.attachment.Maps()
	must(f, err)
	var objs struct {
		Program *ebpf.Program  `ebpf:"fuzz_wire"`
		Wire    *ebpf.Variable `ebpf:"wire"`
	}
	loadFuzzWith(f, &objs, maps)
	w.state = objs.Wire
	l, err := link.AttachCgroup(link.CgroupOptions{Path: w.attachment.Cgroup(), Attach: ebpf.AttachCGroupInetEgress, Program: objs.Program})
	must(f, err)
	f.Cleanup(func() { _ = l.Close() })
	return w
}

// look has the program look for a key from now on.
func (w *fuzzWire) look(t *testing.T, key uint8) {
	t.Helper()
	must(t, w.state.Set(&testprog.FuzzFuzzWire{Key: key}))
}

// expect checks the one packet that left. rec is nil where it had no record.
func (w *fuzzWire) expect(t *testing.T, rec *abi.Record, datagram bool) {
	t.Helper()
	var got testprog.FuzzFuzzWire
	must(t, w.state.Get(&got))
	want := testprog.FuzzFuzzWire{Packets: 1, Key: got.Key, Err: -int32(unix.ENOENT)}
	if rec != nil {
		var info abi.TxInfo
		info.Policy.MarkMask, info.Policy.PriorityMax, info.Policy.Launch = fuzzPolicy.MarkMask, fuzzPolicy.MaxPriority, 1
		valid := rec.Valid &^ info.Refuses(rec, datagram)
		if valid&abi.ValidMark != 0 {
			want.Mark = rec.Mark
		}
		if valid&abi.ValidPriority != 0 {
			want.Priority = rec.Priority
		}
		if valid&abi.ValidLaunch != 0 {
			want.Tstamp = rec.Launch
		}
		if rec.Format == abi.FormatTLV {
			want.Err, want.Value = txGetModel(rec.Area[:rec.AreaLen], got.Key)
		}
	}
	if !datagram {
		// TCP's own times are none of ours, and it may send again.
		got.Tstamp = 0
		got.Packets = min(got.Packets, 1)
	}
	if got != want {
		t.Errorf("left with %+v, want %+v", got, want)
	}
}

// txGetModel is sockmeta_tx_get() for values of 8 bytes.
func txGetModel(area []byte, key uint8) (err int32, value [8]byte) {
	for off := 0; off+4 <= len(area) && off <= abi.AreaMax-4; {
		n := int(area[off+1])
		if area[off] == key {
			if n != len(value) || off+2+n > len(area) {
				return -int32(unix.EMSGSIZE), value
			}
			copy(value[:], area[off+2:])
			return 0, value
		}
		off += (n + 5) / 4 * 4
	}
	return -int32(unix.ENOENT), value
}

const fuzzSlots = 16

// FuzzTransmit sends datagrams with any number, which stands for a transmit slot
// with anything in it: the datagram arrives, and leaves with what the record in the
// slot may ask for, or without and is counted.
func FuzzTransmit(f *testing.F) {
	w := newFuzzWire(f)
	var sink *net.UDPConn
	must(f, w.Do(func() (err error) {
		sink, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		return err
	}))
	f.Cleanup(func() { _ = sink.Close() })
	must(f, sink.SetReadDeadline(time.Now().Add(24*time.Hour)))
	var fd int
	w.within(func() error {
		return w.Do(func() (err error) {
			fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			return err
		})
	})
	f.Cleanup(func() { _ = unix.Close(fd) })
	must(f, bpf.EnableSocket(fd, 0))
	must(f, bpf.EnableTxTime(fd))
	must(f, unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: sink.LocalAddr().(*net.UDPAddr).Port}))

	mem, err := unix.Mmap(-1, 0, fuzzSlots*int(unsafe.Sizeof(abi.TxSlot{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	must(f, err)
	slots := unsafe.Slice((*abi.TxSlot)(unsafe.Pointer(&mem[0])), fuzzSlots)
	req := binary.NativeEndian.AppendUint32(nil, abi.ABI)
	req = binary.NativeEndian.AppendUint32(req, fuzzSlots)
	req = binary.NativeEndian.AppendUint64(req, uint64(uintptr(unsafe.Pointer(&mem[0]))))
	register := func(tb testing.TB) abi.TxInfo {
		if errno := rawSetsockopt(uintptr(fd), abi.SOL_BPF, abi.OptTxSlots, req); errno != 0 {
			tb.Fatal(errno)
		}
		info, err := bpf.SocketTxInfo(fd)
		must(tb, err)
		return info
	}
	info := register(f)

	const asked = abi.ValidMark | abi.ValidPriority | abi.ValidLaunch
	id := anchored(cmsg.FormatTLV, 16, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0)
	long := anchored(cmsg.FormatTLV, append(bytes.Repeat([]byte{17, 2, 1, 1}, 50), id[:12]...)...)
	type seed struct {
		number         uint32
		handle, socket uint64
		version        uint8
		format         uint8
		valid          uint16
		mark, priority uint32
		launch         uint64
		area           []byte
		key            uint8
	}
	for _, s := range []seed{
		{version: 1, valid: asked, mark: 0x1200, priority: 7, launch: 1 << 40, area: id, key: 16},
		{version: 1, valid: asked, mark: 0x1201, priority: 11, area: long, key: 16},
		{version: 1, valid: abi.ValidMark, mark: 0xff00, area: id, key: 17},
		{version: 1, area: long[180:], key: 16},
		{version: 1, area: long[196:], key: 16},
		{version: 1, area: id[:8], key: 16},
		{version: 1, format: 2, area: id, key: 16},
		{version: 1, format: 3, area: id, key: 16},
		{version: 0, area: id, key: 16},
		{version: 1, area: id[:13], key: 16},
		{version: 1, number: 1 << 22, area: id, key: 16},
		{version: 1, number: 3, area: id, key: 16},
		{version: 1, number: fuzzSlots, area: id, key: 16},
		{version: 1, number: info.Proc << 22, area: id, key: 16},
		{version: 1, handle: 1, area: id, key: 16},
		{version: 1, socket: 1, area: id, key: 16},
		{version: 1, area: []byte{16, 2, 1, 2, 16, 8, 0, 0}, key: 16},
		{version: 1, area: []byte{18, 255, 1, 2, 16, 2, 0, 0}, key: 16},
	} {
		f.Add(s.number, s.handle, s.socket, s.version, s.format, s.valid, s.mark, s.priority, s.launch, s.area, s.key)
	}

	var n uint64
	f.Fuzz(func(t *testing.T, number uint32, handle, socket uint64, version, format uint8, valid uint16, mark, priority uint32, launch uint64, area []byte, key uint8) {
		n++
		info := register(t)
		number ^= info.Proc << 22
		index := number & 0xfff
		var rec abi.Record
		rec.Version, rec.Format, rec.Valid = version, format, valid
		rec.Mark, rec.Priority, rec.Launch = mark, priority, launch
		rec.AreaLen = uint8(copy(rec.Area[:255], area))
		if index < fuzzSlots {
			s := &slots[index]
			s.Handle, s.Socket = uint64(number)^handle, info.Socket^socket
			s.Rec.Version, s.Rec.AreaLen, s.Rec.Format, s.Rec.Valid = version, rec.AreaLen, format, valid
			s.Rec.Mark, s.Rec.Priority, s.Rec.Launch = mark, priority, launch
			copy(s.Rec.Area[:], rec.Area[:])
		}

		var want bpf.Counts
		sent := false
		switch {
		case number == 0:
		case number>>22 != info.Proc || index >= fuzzSlots:
			want.Foreign = 1
		case handle != 0:
			want.Stale = 1
		case socket != 0:
			want.Foreign = 1
		case version != abi.RecordVersion || rec.AreaLen%4 != 0 || int(rec.AreaLen) > abi.AreaMax || format > abi.FormatRaw:
			want.Malformed = 1
		default:
			want.Sent, sent = 1, true
			refused := info.Refuses(&rec, true)
			for bit, c := range map[uint16]*uint64{
				abi.ValidMark: &want.MarkRefused, abi.ValidPriority: &want.PriorityRefused, abi.ValidLaunch: &want.LaunchRefused,
			} {
				if refused&bit != 0 {
					*c = 1
				}
			}
		}
		w.look(t, key)
		before, err := w.attachment.Counts()
		must(t, err)
		payload := binary.BigEndian.AppendUint64(nil, n)
		oob := cmsg.Append(nil, unix.SOL_SOCKET, unix.SCM_TXTIME, binary.NativeEndian.AppendUint64(nil, uint64(number)))
		must(t, unix.Sendmsg(fd, payload, oob, nil, 0))
		if !sent {
			w.expect(t, nil, true)
		} else {
			w.expect(t, &rec, true)
		}
		b := make([]byte, 64)
		size, err := sink.Read(b)
		must(t, err)
		if !bytes.Equal(b[:size], payload) {
			t.Errorf("% x arrived, want % x", b[:size], payload)
		}
		after, err := w.attachment.Counts()
		must(t, err)
		if got := countsBetween(before, after); got != want {
			t.Errorf("number %#x: counted %+v, want %+v", number, got, want)
		}
	})
}

// countsBetween is what has been counted meanwhile.
func countsBetween(before, after bpf.Counts) bpf.Counts {
	after.Sent -= before.Sent
	after.Stale -= before.Stale
	after.Foreign -= before.Foreign
	after.Malformed -= before.Malformed
	after.Busy -= before.Busy
	after.MarkRefused -= before.MarkRefused
	after.PriorityRefused -= before.PriorityRefused
	after.LaunchRefused -= before.LaunchRefused
	after.LocalKeys -= before.LocalKeys
	after.Local -= before.Local
	return after
}

// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/binary"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/abi"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
)

// Sizes in bytes of what options carry, see bpf/include/sockmeta_abi.h.
const (
	enableLen  = 8 // without flags
	slotsLen   = 16
	recordHdr  = 64
	recordMax  = int(unsafe.Sizeof(abi.Record{}))
	maxTxSlots = 4096
	unknown    = unix.Errno(0xffff) // what the kernel says to options that nobody has
)

// FuzzSockopt sets and gets any option at level SOL_BPF with any value, on sockets
// of every kind: the answer is the one that the option has for it, nothing is
// written but the answer, and the socket still sends.
func FuzzSockopt(f *testing.F) {
	testutil.RequireRoot(f)
	_, within := fuzzAttachment(f, fuzzPolicy)
	ns := testutil.Namespace(f)
	// The sockets are of the cgroup that they are made in.
	const perKind = 2
	var fds [4]int
	within(func() error {
		return ns.Do(func() (err error) {
			for i := range fds {
				kind := unix.SOCK_DGRAM
				if i >= perKind {
					kind = unix.SOCK_STREAM
				}
				if fds[i], err = unix.Socket(unix.AF_INET6, kind|unix.SOCK_CLOEXEC, 0); err != nil {
					return err
				}
				f.Cleanup(func() { _ = unix.Close(fds[i]) })
				// Two of each kind: one that has opted in, and one that ENABLE
				// has not been tried on.
				if i%perKind == 1 {
					err = bpf.EnableSocket(fds[i], 0)
				}
			}
			return err
		})
	})
	for _, fd := range fds[:perKind] {
		must(f, unix.Bind(fd, &unix.SockaddrInet6{Addr: [16]byte{15: 1}}))
	}

	enable := binary.NativeEndian.AppendUint64(nil, uint64(abi.ABI))
	enableWith := func(flags uint32) []byte { return binary.NativeEndian.AppendUint32(slices.Clip(enable), flags) }
	slots := binary.NativeEndian.AppendUint64(binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, abi.ABI), 16), 1<<40)
	var md cmsg.Metadata
	must(f, md.SetUint64(cmsg.KeyUser, 7))
	md.SetMark(0x1200)
	record, _ := md.MarshalBinary()
	padded := append(slices.Clip(record), make([]byte, recordMax-len(record))...)
	wrong := func(at int, v byte) []byte {
		b := slices.Clone(record)
		b[at] = v
		return b
	}
	for kind := range uint8(4) {
		for _, b := range [][]byte{nil, enable, enable[:7], append(slices.Clip(enable), 1), make([]byte, 8), enableWith(0), enableWith(abi.EnableCmsg), enableWith(abi.EnableAsk), enableWith(4), append(enableWith(0), make([]byte, 12)...), append(enableWith(0), make([]byte, 13)...), append(enableWith(0), 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0)} {
			f.Add(kind, true, int32(abi.OptEnable), b, uint16(0))
		}
		for _, b := range [][]byte{nil, record, record[:recordHdr], record[:len(record)-1], padded, append(slices.Clip(padded), 0), wrong(0, 2), wrong(1, 60), wrong(2, 13), wrong(3, 3), make([]byte, 4096)} {
			f.Add(kind, true, int32(abi.OptTxRecord), b, uint16(0))
		}
		for _, b := range [][]byte{nil, slots, slots[:15], make([]byte, 16), append(slices.Clip(slots), slots...)} {
			f.Add(kind, true, int32(abi.OptTxSlots), b, uint16(0))
		}
		for opt := range int32(10) {
			f.Add(kind, false, opt, []byte(nil), uint16(4096))
			if kind%perKind == 1 {
				f.Add(kind, false, opt, []byte(nil), uint16(31))
				f.Add(kind, false, opt, []byte(nil), uint16(0))
			}
		}
		f.Add(kind, false, int32(abi.OptSlot), []byte(nil), uint16(336))
		f.Add(kind, false, int32(abi.OptSlot+1<<24-1), []byte(nil), uint16(335))
		f.Add(kind, false, int32(-1), []byte(nil), uint16(400))
		f.Add(kind, true, int32(-1<<31), []byte(nil), uint16(0))
	}

	buf := make([]byte, maxOptlen)
	f.Fuzz(func(t *testing.T, kind uint8, set bool, opt int32, value []byte, size uint16) {
		kind %= uint8(len(fds))
		fd := fds[kind]
		udp, optedIn := kind < perKind, kind%perKind == 1
		if !optedIn && set && opt == int32(abi.OptEnable) && setModel(udp, false, opt, value) == 0 {
			return
		}
		var got, want unix.Errno
		if set {
			value = append(make([]byte, 0, 4097), value[:min(len(value), 4096)]...)
			got, want = rawSetsockopt(uintptr(fd), abi.SOL_BPF, int(opt), value), setModel(udp, optedIn, opt, value)
		} else {
			var answer []byte
			size := int(size % 4097)
			answer, got = rawGetsockopt(t, uintptr(fd), abi.SOL_BPF, int(opt), size, buf)
			var n int
			n, want = getModel(optedIn, opt, size)
			if udp && want == unix.ENODATA && got == 0 && opt >= int32(abi.OptSlot) {
				// One that a datagram to itself came in.
				n, want = int(unsafe.Sizeof(abi.Answer{})), 0
				seq := binary.NativeEndian.Uint64(answer)
				if seq&abi.HandleBit == 0 || seq&(1<<24-1) != uint64(opt&(1<<24-1)) || answer[16] != abi.RecordVersion {
					t.Errorf("slot %#x has % x", opt, answer)
				}
			}
			if want == 0 && got == 0 && len(answer) != n {
				t.Errorf("option %d: %d bytes, want %d", opt, len(answer), n)
			}
		}
		if want == unknown && (got == unix.ENOPROTOOPT || got == unix.EOPNOTSUPP) {
			got = unknown
		}
		if got != want {
			t.Errorf("socket %d, set %v, option %d of %d bytes, % x: %d, want %d", kind, set, opt, size, value, got, want)
		}
		if udp {
			sendToItself(t, fd)
		}
	})
}

// sendToItself sends a datagram by a number that may stand for a slot anywhere in
// the process's memory.
func sendToItself(t *testing.T, fd int) {
	t.Helper()
	own, err := unix.Getsockname(fd)
	must(t, err)
	info, err := bpf.SocketTxInfo(fd)
	var oob []byte
	if err == nil && info.Proc != 0 {
		must(t, bpf.EnableTxTime(fd))
		oob = cmsg.Append(nil, unix.SOL_SOCKET, unix.SCM_TXTIME, binary.NativeEndian.AppendUint64(nil, uint64(info.Proc)<<22))
	}
	must(t, unix.Sendmsg(fd, []byte("datagram"), oob, own, 0))
	b := make([]byte, 16)
	n, _, err := unix.Recvfrom(fd, b, unix.MSG_DONTWAIT)
	must(t, err)
	if string(b[:n]) != "datagram" {
		t.Errorf("%q arrived", b[:n])
	}
}

// setModel is what the option says to a value.
func setModel(udp, optedIn bool, opt int32, b []byte) unix.Errno {
	isOurs := func() bool { return binary.NativeEndian.Uint32(b) == abi.ABI }
	switch {
	case opt == int32(abi.OptEnable):
		if len(b) < enableLen {
			return unix.EINVAL
		}
		if !isOurs() {
			return unknown
		}
		if len(b) >= enableLen+16 && binary.NativeEndian.Uint64(b[enableLen+8:]) != 0 {
			// Of another attachment, but for a number that nobody guesses.
			return unknown
		}
		if len(b) >= enableLen+4 {
			flags := binary.NativeEndian.Uint32(b[enableLen:])
			if flags == abi.EnableAsk {
				return 0
			}
			if flags&^abi.EnableCmsg != 0 || flags != 0 && !(udp && native()) {
				return unix.EOPNOTSUPP
			}
		}
		return 0
	case optedIn && !udp && opt == int32(abi.OptTxRecord):
		switch {
		case len(b) > recordMax:
			return unix.EMSGSIZE
		case len(b) == 0:
			return 0
		case len(b) < recordHdr || b[0] != abi.RecordVersion || b[1] != recordHdr || b[3] > abi.FormatRaw,
			int(b[2]) > abi.AreaMax || b[2]%4 != 0 || len(b) < recordHdr+int(b[2]):
			return unix.EINVAL
		}
		return 0
	case optedIn && udp && opt == int32(abi.OptTxSlots):
		if len(b) < slotsLen {
			return unix.EINVAL
		}
		if n := binary.NativeEndian.Uint32(b[4:]); n == 0 || n > maxTxSlots {
			return unix.EINVAL
		}
		if !isOurs() {
			return unknown
		}
		return 0
	}
	return unknown
}

// getModel is what the option says to a buffer, and how much of that it takes.
func getModel(optedIn bool, opt int32, size int) (int, unix.Errno) {
	fits := func(n uintptr) (int, unix.Errno) {
		if size < int(n) {
			return 0, unix.EMSGSIZE
		}
		return int(n), 0
	}
	switch {
	case !optedIn:
	case opt == int32(abi.OptInfo):
		return fits(unsafe.Sizeof(bpf.Info{}))
	case opt == int32(abi.OptTxInfo):
		return fits(unsafe.Sizeof(abi.TxInfo{}))
	case opt >= int32(abi.OptSlot) && opt < int32(abi.OptSlot)+1<<24:
		if n, err := fits(unsafe.Sizeof(abi.Answer{})); err != 0 {
			return n, err
		}
		// Unless the slot is this socket's.
		return 0, unix.ENODATA
	case opt >= int32(abi.OptTCPRead) && opt <= int32(abi.OptTCPLatest):
		return 0, unix.ENODATA
	}
	return 0, unknown
}

// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/internal/abi"
)

// EnableSocket opts the socket in: from now on its packets get records. A
// listener's connections inherit it. tsflags is what the application itself
// asked of SO_TIMESTAMPING. No privilege is needed. The error is
// ErrNotSupported when no programs answer for the socket's cgroup, and
// ErrTooManySockets, too, when they keep it out.
//
// Where several attachments could answer, the one that has the socket does, or else
// the first: that of the innermost cgroup, and in it the oldest.
func EnableSocket(fd int, tsflags uint32) error {
	return EnableSocketOf(fd, tsflags, instanceOf(fd))
}

// EnableSocketOf is EnableSocket for a socket that the instance has, as SocketInfo
// says, or for any of them where it is 0.
func EnableSocketOf(fd int, tsflags uint32, instance uint64) error {
	return enable(fd, abi.Enable{ABI: abi.ABI, TSFlags: tsflags, Instance: instance})
}

// EnableSocketCmsg is EnableSocket for a UDP socket that wants the records of what it
// receives as control messages, {SOL_BPF, SOCKMETA_SCM_RECORD}. The error is
// ErrNotSupported where the attachment has no FeatureNative.
func EnableSocketCmsg(fd int, tsflags uint32) error {
	return enable(fd, abi.Enable{ABI: abi.ABI, TSFlags: tsflags, Flags: abi.EnableCmsg, Instance: instanceOf(fd)})
}

// AskSocket returns what opting in to the instance would: an ErrTooManySockets, or an
// ErrNotSupported where the instance is not there any more.
func AskSocket(fd int, instance uint64) error {
	return enable(fd, abi.Enable{ABI: abi.ABI, Flags: abi.EnableAsk, Instance: instance})
}

// instanceOf returns the instance that has the socket, 0 where none has.
func instanceOf(fd int) uint64 {
	info, err := SocketInfo(fd)
	if err != nil {
		return 0
	}
	return info.Instance
}

func enable(fd int, req abi.Enable) error {
	err := setsockopt(fd, abi.SOL_BPF, abi.OptEnable, unsafe.Pointer(&req), unsafe.Sizeof(req))
	switch {
	case errors.Is(err, unix.ENFILE):
		return fmt.Errorf("%w: %w: as many as the attachment may have (bpf.Options.MaxSockets, sockmeta attach -max-sockets): %w", ErrNotSupported, ErrTooManySockets, err)
	case errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%w: %w: as many as one user may have (bpf.Options.MaxSocketsPerUser, sockmeta attach -max-sockets-per-user): %w", ErrNotSupported, ErrTooManySockets, err)
	}
	return err
}

// SocketInfo returns what the programs that the socket opted in to say of
// themselves.
func SocketInfo(fd int) (Info, error) {
	var info Info
	err := getsockopt(fd, abi.OptInfo, unsafe.Pointer(&info), unsafe.Sizeof(info))
	return info, err
}

// SocketRecord copies one of the records that are kept at a TCP socket to dst;
// opt is abi.OptTCPRead, abi.OptTCPOpening or abi.OptTCPLatest. The error is ErrNoMetadata
// or ErrOverrun where there is none, or none any more.
func SocketRecord(fd, opt int, dst *abi.Record) error {
	return getsockopt(fd, opt, unsafe.Pointer(dst), unsafe.Sizeof(*dst))
}

// SocketSlot asks the kernel for the record that handle stands for, which
// needs no access to the receive map: it answers for the socket's own packets
// only. Otherwise as Slots.Read.
func SocketSlot(fd int, handle uint64, dst *abi.Record) (tsflags uint32, err error) {
	var answer abi.Answer
	if handle&abi.HandleBit == 0 {
		return 0, ErrNoMetadata
	}
	err = getsockopt(fd, abi.OptSlot+int(handle&abi.IndexMask), unsafe.Pointer(&answer), unsafe.Sizeof(answer))
	if errors.Is(err, ErrNoMetadata) || err == nil && answer.Seq != handle {
		return 0, ErrOverrun
	}
	if err != nil {
		return 0, err
	}
	*dst = answer.Rec
	return answer.TSFlags, nil
}

// SocketID returns the number by which the socket's slots say whose they are;
// info is what SocketInfo returned.
func SocketID(fd int, info Info) (uint64, error) {
	tx, err := SocketTxInfo(fd)
	return tx.Socket - info.Instance, err
}

// SocketTxInfo returns what a socket that opted in may send, and by which numbers.
func SocketTxInfo(fd int) (abi.TxInfo, error) {
	var info abi.TxInfo
	err := getsockopt(fd, abi.OptTxInfo, unsafe.Pointer(&info), unsafe.Sizeof(info))
	return info, err
}

// SetSocketRecord gives all packets that a TCP socket sends from now on a record,
// in the form that cmsg.Metadata.AppendBinary writes; an empty one takes it away.
func SetSocketRecord(fd int, record []byte) error {
	return setsockopt(fd, abi.SOL_BPF, abi.OptTxRecord, unsafe.Pointer(unsafe.SliceData(record)), uintptr(len(record)))
}

// EnableTxTime lets the control messages of a socket that opted in carry numbers of
// transmit slots: SO_TXTIME by CLOCK_MONOTONIC, unless the application has chosen its
// clock already. The error is ErrNotSupported for other clocks (CheckTxClock).
func EnableTxTime(fd int) error {
	info, err := SocketTxInfo(fd)
	if err != nil {
		return err
	}
	if info.Clock == 0 {
		v := struct{ clock, flags int32 }{clock: unix.CLOCK_MONOTONIC}
		return setsockopt(fd, unix.SOL_SOCKET, unix.SO_TXTIME, unsafe.Pointer(&v), unsafe.Sizeof(v))
	}
	return CheckTxClock(&info)
}

// CheckTxClock returns an error, which is ErrNotSupported, where SO_TXTIME has another
// clock than CLOCK_MONOTONIC. By others the kernel keeps times from being as early as
// numbers of transmit slots are (net/core/sock.c, SCM_TXTIME, in Linux 7.3), and the
// application's own launch times have to keep their meaning.
func CheckTxClock(i *abi.TxInfo) error {
	if i.Clock == 1+unix.CLOCK_MONOTONIC {
		return nil
	}
	return fmt.Errorf("%w for sockets whose SO_TXTIME has another clock than CLOCK_MONOTONIC", ErrNotSupported)
}

func setsockopt(fd, level, opt int, p unsafe.Pointer, size uintptr) error {
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(opt),
		uintptr(p), size, 0)
	return sockoptError("setsockopt", errno)
}

func getsockopt(fd, opt int, p unsafe.Pointer, size uintptr) error {
	optlen := uint32(size)
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), abi.SOL_BPF, uintptr(opt),
		uintptr(p), uintptr(unsafe.Pointer(&optlen)), 0)
	runtime.KeepAlive(&optlen)
	if errno == 0 && uintptr(optlen) != size {
		return ErrNotSupported
	}
	return sockoptError("getsockopt", errno)
}

// sockoptError knows the errors of our programs, and those of a kernel in
// which nobody answers at SOL_BPF: ENOPROTOOPT and, for some sockets over
// IPv4, EOPNOTSUPP.
func sockoptError(call string, errno unix.Errno) error {
	switch errno {
	case 0:
		return nil
	case unix.ENODATA:
		return ErrNoMetadata
	case unix.EOVERFLOW:
		return ErrOverrun
	case unix.ENOPROTOOPT, unix.EOPNOTSUPP:
		return ErrNotSupported
	}
	return os.NewSyscallError(call, errno)
}

// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// EnableSocket opts the socket in: from now on its packets get records. A
// listener's connections inherit it. tsflags is what the application itself
// asked of SO_TIMESTAMPING. No privilege is needed. The error is
// ErrNotSupported when no programs answer for the socket's cgroup.
func EnableSocket(fd int, tsflags uint32) error {
	req := enableRequest{Abi: ABI, Tsflags: tsflags}
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), SOL_BPF, uintptr(OptEnable),
		uintptr(unsafe.Pointer(&req)), unsafe.Sizeof(req), 0)
	runtime.KeepAlive(&req)
	return sockoptError("setsockopt", errno)
}

// SocketInfo returns what the programs that the socket opted in to say of
// themselves.
func SocketInfo(fd int) (Info, error) {
	var info Info
	err := getsockopt(fd, OptInfo, unsafe.Pointer(&info), unsafe.Sizeof(info))
	return info, err
}

// SocketRecord copies one of the records that are kept at a TCP socket to dst;
// opt is OptTCPRead, OptTCPOpening or OptTCPLatest. The error is ErrNoMetadata
// or ErrOverrun where there is none, or none any more.
func SocketRecord(fd, opt int, dst *[RecordWords]uint64) error {
	return getsockopt(fd, opt, unsafe.Pointer(dst), unsafe.Sizeof(*dst))
}

// SocketSlot asks the kernel for the record that handle stands for, which
// needs no access to the receive map: it answers for the socket's own packets
// only. Otherwise as Slots.Read.
func SocketSlot(fd int, handle uint64, dst *[RecordWords]uint64) (tsflags uint32, err error) {
	var answer Answer
	if handle&HandleBit == 0 {
		return 0, ErrNoMetadata
	}
	err = getsockopt(fd, OptSlot+int(handle&indexMask), unsafe.Pointer(&answer), unsafe.Sizeof(answer))
	if errors.Is(err, ErrNoMetadata) || err == nil && answer.Seq != handle {
		return 0, ErrOverrun
	}
	if err != nil {
		return 0, err
	}
	*dst = *(*[RecordWords]uint64)(unsafe.Pointer(&answer.Rec))
	return answer.Tsflags, nil
}

func getsockopt(fd, opt int, p unsafe.Pointer, size uintptr) error {
	optlen := uint32(size)
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), SOL_BPF, uintptr(opt),
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

// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// MemInfo is what a socket holds, in bytes, and what it has dropped, in packets: the
// values of SK_MEMINFO_VARS (include/uapi/linux/sock_diag.h).
type MemInfo struct {
	RmemAlloc, Rcvbuf    uint32
	WmemAlloc, Sndbuf    uint32
	FwdAlloc, WmemQueued uint32
	Optmem               uint32 // charged for its options
	Backlog              uint32
	Drops                uint32
}

// SocketMemInfo asks a socket (SO_MEMINFO).
func SocketMemInfo(fd int) (m MemInfo, err error) {
	size := uint32(unsafe.Sizeof(m))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&m)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return m, os.NewSyscallError("getsockopt(SO_MEMINFO)", errno)
	}
	return m, nil
}

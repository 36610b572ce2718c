// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// withFD calls f with the descriptor of a connection.
func withFD(c syscall.Conn, f func(fd int) error) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := rc.Control(func(fd uintptr) { err = f(int(fd)) }); cerr != nil {
		return cerr
	}
	return err
}

// socketDrops returns how many packets a socket has dropped (SK_MEMINFO_DROPS of
// linux/sock_diag.h).
func socketDrops(c syscall.Conn) (int, error) {
	const drops = 8
	var v [drops + 1]uint32
	err := withFD(c, func(fd int) error {
		size := uint32(unsafe.Sizeof(v))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&v)), uintptr(unsafe.Pointer(&size)), 0)
		if errno != 0 {
			return os.NewSyscallError("getsockopt(SO_MEMINFO)", errno)
		}
		return nil
	})
	return int(v[drops]), err
}

func setOption(c syscall.Conn, level, opt, value int) error {
	return withFD(c, func(fd int) error {
		return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, level, opt, value))
	})
}

// reusePort is a Control function of net.ListenConfig.
func reusePort(_, _ string, rc syscall.RawConn) error {
	var err error
	cerr := rc.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	})
	if cerr != nil {
		return cerr
	}
	return os.NewSyscallError("setsockopt(SO_REUSEPORT)", err)
}

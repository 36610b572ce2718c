// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/internal/netlab"
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

// socketDrops returns how many packets a socket has dropped.
func socketDrops(c syscall.Conn) (int, error) {
	var m netlab.MemInfo
	err := withFD(c, func(fd int) (err error) {
		m, err = netlab.SocketMemInfo(fd)
		return err
	})
	return int(m.Drops), err
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

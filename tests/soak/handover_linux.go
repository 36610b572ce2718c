// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// giveSocket passes a socket to the process at the other end (SCM_RIGHTS).
func giveSocket(c syscall.Conn) error {
	return withFD(c, func(fd int) error {
		return os.NewSyscallError("sendmsg", unix.Sendmsg(peerFD, []byte{0}, unix.UnixRights(fd), nil, 0))
	})
}

// takeSocket takes the next socket that was given. It was sent before.
func takeSocket() (*sockmeta.UDPConn, error) {
	f, err := takeFile()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c, err := net.FilePacketConn(f)
	if err != nil {
		return nil, err
	}
	return sockmeta.WrapUDP(c.(*net.UDPConn)), nil
}

// takeFile does not wait for one.
func takeFile() (*os.File, error) {
	oob := make([]byte, 64)
	_, n, _, _, err := unix.Recvmsg(peerFD, make([]byte, 1), oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("recvmsg", err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		return nil, fmt.Errorf("no socket: %d messages, %v", len(msgs), err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fds[0]), "socket"), nil
}

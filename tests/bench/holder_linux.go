// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/conn"
)

// fileMargin is how many files the process has open besides the sockets of a case.
const fileMargin = 1000

// fileLimit returns how many files a process may have open, n if that can be had.
func fileLimit(n int) (int, error) {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return 0, os.NewSyscallError("getrlimit", err)
	}
	if lim.Cur >= uint64(n) {
		return n, nil
	}
	higher := unix.Rlimit{Cur: uint64(n), Max: max(lim.Max, uint64(n))}
	if unix.Setrlimit(unix.RLIMIT_NOFILE, &higher) == nil {
		return n, nil
	}
	// Without CAP_SYS_RESOURCE there is no more than this.
	lim.Cur = lim.Max
	return int(lim.Max), os.NewSyscallError("setrlimit", unix.Setrlimit(unix.RLIMIT_NOFILE, &lim))
}

// hold makes sockets that are there, and that nobody uses, beyond what the process
// may have open: on threads with tables of files of their own, of at most limit
// files each. It is to be called while few files are open.
func (l *lab) hold(in place, opted bool, addrs []netip.AddrPort, limit int) error {
	for len(addrs) > 0 {
		n := min(len(addrs), limit-fileMargin)
		w, err := startWorker(l.m.cpus.sender)
		if err != nil {
			return err
		}
		// The table, and all in it, ends with the thread.
		l.m.atEnd(w.stop)
		err = w.do(func() error {
			if err := unix.Unshare(unix.CLONE_FILES); err != nil {
				return os.NewSyscallError("unshare", err)
			}
			return os.NewSyscallError("setns", unix.Setns(int(l.Server.File().Fd()), unix.CLONE_NEWNET))
		})
		if err != nil {
			return err
		}
		err = l.serve(in, func() error {
			return w.do(func() error { return bindAll(addrs[:n], opted) })
		})
		if err != nil {
			return err
		}
		addrs = addrs[n:]
	}
	return nil
}

func bindAll(addrs []netip.AddrPort, opted bool) error {
	for _, addr := range addrs {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		if opted {
			if err := conn.Prepare("udp4", descriptor(fd)); err != nil {
				return err
			}
		}
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: addr.Addr().As4(), Port: int(addr.Port())})
		if err != nil {
			return os.NewSyscallError("bind", err)
		}
	}
	return nil
}

// A descriptor is a syscall.RawConn of a socket that stays open.
type descriptor uintptr

func (d descriptor) Control(f func(fd uintptr)) error { f(uintptr(d)); return nil }
func (d descriptor) Read(func(uintptr) bool) error    { return os.ErrInvalid }
func (d descriptor) Write(func(uintptr) bool) error   { return os.ErrInvalid }

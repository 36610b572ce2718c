// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"unsafe"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/internal/kerneltypes"
)

// optIn makes the kernel keep records for the socket, attaching the programs
// to this process's cgroup when nobody has. It may be done again. receiveMap is
// what NewGrantedUDPConn has.
func (s *socket) optIn(fd int, udp bool, receiveMap string) (err error) {
	var ts timestamping
	if udp {
		if ts, err = getTimestamping(fd); err != nil {
			return err
		}
	}
	err = bpf.EnableSocket(fd, ts.flags)
	if errors.Is(err, ErrNotSupported) && !errors.Is(err, bpf.ErrTooManySockets) {
		if _, err := bpf.AttachOwn(); err != nil {
			return err
		}
		err = bpf.EnableSocket(fd, ts.flags)
		if errors.Is(err, ErrNotSupported) && !errors.Is(err, bpf.ErrTooManySockets) {
			if p, perr := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); perr == nil && p == unix.IPPROTO_MPTCP {
				return fmt.Errorf("%w: it is a Multipath TCP socket: SetMultipathTCP(false) makes others", err)
			}
			return fmt.Errorf("%w: no programs for this socket's cgroup: it was made in another cgroup than %s: attach to that one, or to one above both", err, ownCgroup())
		}
	}
	if err != nil {
		return err
	}
	info, err := bpf.SocketInfo(fd)
	if err != nil {
		return err
	}
	s.instance = info.Instance
	s.tier = tierOf(info.Features)
	if udp && s.tier == TierNative {
		s.carrier = &native{}
		return bpf.EnableSocketCmsg(fd, ts.flags)
	}
	if udp {
		if err := ts.carryHandles(fd); err != nil {
			return err
		}
		// The programs took that for the application's wish.
		if err := bpf.EnableSocketOf(fd, ts.flags, s.instance); err != nil {
			return err
		}
	}
	slots, err := bpf.FindSlots(info, receiveMap)
	s.mapped, s.unmapped = slots != nil, err
	switch {
	case !udp:
		return nil
	case slots == nil:
		s.carrier = &asked{raw: s.raw}
		return nil
	}
	id, err := bpf.SocketID(fd, info)
	s.carrier = &mapped{slots: slots, id: id}
	return err
}

func ownCgroup() string {
	a, err := bpf.AttachOwn()
	if err != nil {
		return "this process's"
	}
	return a.Cgroup()
}

// timestamping is struct so_timestamping, and which of the two options it was
// set by.
type timestamping struct {
	flags   uint32
	bindPHC int32
	opt     int
}

// getTimestamping reads what the application has asked for; where the socket
// opted in before, the programs leave out what sockmeta added.
func getTimestamping(fd int) (timestamping, error) {
	var v [2]uint32
	if err := getsockopt(fd, unix.SO_TIMESTAMPING, &v); err != nil {
		return timestamping{}, err
	}
	ts := timestamping{flags: v[0], bindPHC: int32(v[1]), opt: unix.SO_TIMESTAMPING}
	// Both options work on one flag of the socket, which also gives the
	// application's SO_TIMESTAMP messages their type: it stays as it is. Only
	// on 32-bit systems a handle does not fit into the old messages.
	if unsafe.Sizeof(uintptr(0)) == 4 {
		ts.opt = unix.SO_TIMESTAMPING_NEW
		return ts, nil
	}
	for _, opt := range []int{unix.SO_TIMESTAMPING_NEW, unix.SO_TIMESTAMPNS_NEW, unix.SO_TIMESTAMP_NEW} {
		var v [2]uint32
		if err := getsockopt(fd, opt, &v); err == nil && v[0] != 0 {
			ts.opt = unix.SO_TIMESTAMPING_NEW
		}
	}
	return ts, nil
}

// carryHandles lets recvmsg return skb->tstamp. Without
// SOF_TIMESTAMPING_RX_SOFTWARE it does not switch on timestamps for the host's
// packets, and it needs no privilege.
func (ts timestamping) carryHandles(fd int) error {
	v := [2]uint32{ts.flags | unix.SOF_TIMESTAMPING_SOFTWARE, uint32(ts.bindPHC)}
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, uintptr(ts.opt),
		uintptr(unsafe.Pointer(&v)), unsafe.Sizeof(v), 0)
	if errno != 0 {
		return os.NewSyscallError("setsockopt", errno)
	}
	return nil
}

func getsockopt(fd, opt int, v *[2]uint32) error {
	size := uint32(unsafe.Sizeof(*v))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, uintptr(opt),
		uintptr(unsafe.Pointer(v)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return os.NewSyscallError("getsockopt", errno)
	}
	return nil
}

// nativeMissing says why the programs have no native tier.
func nativeMissing() error {
	if haveKfuncs() {
		return fmt.Errorf("%w: whoever attached the programs could not use the kernel functions for control messages, which are there: it takes CAP_SYS_ADMIN, and a module that was loaded before", ErrNotSupported)
	}
	return fmt.Errorf("%w: no kernel function bpf_msg_put_cmsg: needs the module of bpf/kmod, on Linux 6.12", ErrNotSupported)
}

// haveKfuncs looks for the module, whose types not everybody may read, and for the
// talk's kfuncs among the kernel's own.
func haveKfuncs() bool {
	if _, err := os.Stat("/sys/kernel/btf/sockmeta"); err == nil {
		return true
	}
	return kernelHasKfuncs()
}

var kernelHasKfuncs = sync.OnceValue(func() bool {
	spec, err := kerneltypes.Cache().Kernel()
	if err != nil {
		return false
	}
	var fn *btf.Func
	return spec.TypeByName("bpf_msg_put_cmsg", &fn) == nil
})

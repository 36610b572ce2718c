// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// From linux/io_uring.h, which x/sys/unix leaves out.
const (
	ioringOpSendmsg      = 9
	ioringOpRecvmsg      = 10
	ioringEnterGetevents = 1 << 0
	ioringFeatSingleMmap = 1 << 0
	ioringOffSQRing      = 0
	ioringOffSQEs        = 0x10000000

	// Since Linux 5.15.
	ioringRegisterIOWQMaxWorkers = 19

	// iosqeAsync has a worker carry the operation out.
	iosqeAsync = 1 << 4
)

type ioUringParams struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32

	_  [3]uint32
	sq struct {
		head, tail, ringMask, ringEntries, flags, dropped, array, _ uint32
		_                                                           uint64
	}
	cq struct {
		head, tail, ringMask, ringEntries, overflow, cqes, flags, _ uint32
		_                                                           uint64
	}
}

type ioUringSQE struct {
	opcode, flags uint8
	ioprio        uint16
	fd            int32
	off, addr     uint64
	len, msgFlags uint32
	userData      uint64
	_             [3]uint64
}

type ioUringCQE struct {
	userData uint64
	res      int32
	flags    uint32
}

// A ring is an io_uring for messages.
type ring struct {
	fd          int
	entries     int
	params      ioUringParams
	rings, sqes []byte
}

func newRing(entries int) (_ *ring, err error) {
	r := &ring{fd: -1, entries: entries}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(&r.params)), 0)
	if errno != 0 {
		return nil, os.NewSyscallError("io_uring_setup", errno)
	}
	r.fd = int(fd)
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	if r.params.features&ioringFeatSingleMmap == 0 {
		return nil, errors.New("io_uring: two rings")
	}
	size := max(r.params.sq.array+r.params.sqEntries*4, r.params.cq.cqes+r.params.cqEntries*uint32(unsafe.Sizeof(ioUringCQE{})))
	const prot, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	if r.rings, err = unix.Mmap(r.fd, ioringOffSQRing, int(size), prot, flags); err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	if r.sqes, err = unix.Mmap(r.fd, ioringOffSQEs, int(r.params.sqEntries)*int(unsafe.Sizeof(ioUringSQE{})), prot, flags); err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	return r, nil
}

// limitWorkers has the kernel use at most so many tasks for requests of either sort, those
// that may take forever and those that don't.
func (r *ring) limitWorkers(n uint32) error {
	most := [2]uint32{n, n}
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), ioringRegisterIOWQMaxWorkers,
		uintptr(unsafe.Pointer(&most)), uintptr(len(most)), 0, 0)
	if errno != 0 {
		return os.NewSyscallError("io_uring_register", errno)
	}
	return nil
}

func (r *ring) close() {
	for _, m := range [][]byte{r.rings, r.sqes} {
		if m != nil {
			_ = unix.Munmap(m)
		}
	}
	_ = unix.Close(r.fd)
}

func (r *ring) word(off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.rings[off])) }

// sendmsg has the messages sent, each on a socket of its own, and returns when
// they are. There must be as many as the ring has entries, or fewer.
func (r *ring) sendmsg(fds []int, b *mmsg, flags uint8) error {
	return r.do(ioringOpSendmsg, fds, b, flags, nil)
}

// recvmsg receives as many messages, by one socket, and returns when they are there.
func (r *ring) recvmsg(fd int, b *recvBatch, flags uint8) error {
	fds := make([]int, len(b.hdrs))
	for i := range fds {
		fds[i] = fd
	}
	return r.do(ioringOpRecvmsg, fds, &b.mmsg, flags, func(i, n int) { b.hdrs[i].len = uint32(n) })
}

// do has an operation done for each of the messages, and calls done with what came of
// it.
func (r *ring) do(op uint8, fds []int, b *mmsg, flags uint8, done func(i, n int)) error {
	sq, cq := &r.params.sq, &r.params.cq
	tail := atomic.LoadUint32(r.word(sq.tail))
	for i, fd := range fds {
		at := (tail + uint32(i)) & *r.word(sq.ringMask)
		sqe := (*ioUringSQE)(unsafe.Pointer(&r.sqes[uintptr(at)*unsafe.Sizeof(ioUringSQE{})]))
		*sqe = ioUringSQE{
			opcode: op, flags: flags, fd: int32(fd),
			addr: uint64(uintptr(unsafe.Pointer(&b.hdrs[i].hdr))), len: 1, userData: uint64(i),
		}
		*r.word(sq.array + 4*at) = at
	}
	n := uint32(len(fds))
	atomic.StoreUint32(r.word(sq.tail), tail+n)
	submitted, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(n), uintptr(n), ioringEnterGetevents, 0, 0)
	if errno != 0 {
		return os.NewSyscallError("io_uring_enter", errno)
	}
	if uint32(submitted) != n {
		return fmt.Errorf("io_uring_enter: %d of %d messages", submitted, n)
	}
	head := atomic.LoadUint32(r.word(cq.head))
	// Signals end the wait, and Go's scheduler sends some.
	for atomic.LoadUint32(r.word(cq.tail))-head < n {
		_, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), 0, uintptr(n), ioringEnterGetevents, 0, 0)
		if errno != 0 && errno != unix.EINTR {
			return os.NewSyscallError("io_uring_enter", errno)
		}
	}
	var errs []error
	for i := range n {
		at := (head + i) & *r.word(cq.ringMask)
		cqe := (*ioUringCQE)(unsafe.Pointer(&r.rings[uintptr(cq.cqes)+uintptr(at)*unsafe.Sizeof(ioUringCQE{})]))
		if cqe.res < 0 {
			errs = append(errs, fmt.Errorf("io_uring: message %d: %w", cqe.userData, unix.Errno(-cqe.res)))
		} else if done != nil {
			done(int(cqe.userData), int(cqe.res))
		}
	}
	atomic.StoreUint32(r.word(cq.head), head+n)
	runtime.KeepAlive(b)
	return errors.Join(errs...)
}

// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/cmsg"
)

// mmsghdr is struct mmsghdr of recvmmsg(2) and sendmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// An mmsg is a batch of messages as the kernel takes them. They are used again, as
// RawConn's functions let everything escape.
type mmsg struct {
	hdrs  []mmsghdr
	names []unix.RawSockaddrInet6
	iovs  []unix.Iovec
	// oob is cut into private buffers for control messages.
	oob []byte

	// iov and cut are how much of iovs and oob is in use.
	iov, cut int

	// arrivals are those of the messages that were read.
	arrivals []arrival
	// slots are the transmit slots of the messages, -1 for none, and errs what
	// became of their metadata.
	slots []int
	errs  []error
	// md is for one record at a time.
	md cmsg.Metadata
	// socket is what the socket's application asks of SO_TIMESTAMPING.
	socket tsFlags

	flags int
	n     int
	errno syscall.Errno

	recv, send func(fd uintptr) (done bool)
}

var mmsgs = sync.Pool{New: func() any {
	m := new(mmsg)
	m.recv = func(fd uintptr) bool { return m.call(unix.SYS_RECVMMSG, fd) }
	m.send = func(fd uintptr) bool { return m.call(unix.SYS_SENDMMSG, fd) }
	return m
}}

// newMmsg returns a batch of n messages with iovs buffers and oob bytes for
// control messages in all; each piece of them is up to oobAlign-1 longer.
func newMmsg(n, iovs, oob int) *mmsg {
	m := mmsgs.Get().(*mmsg)
	if cap(m.hdrs) < n {
		m.hdrs = make([]mmsghdr, n)
		m.names = make([]unix.RawSockaddrInet6, n)
		m.arrivals = make([]arrival, n)
	}
	m.hdrs, m.names, m.arrivals = m.hdrs[:n], m.names[:n], m.arrivals[:n]
	if cap(m.iovs) < iovs {
		m.iovs = make([]unix.Iovec, iovs)
	}
	m.iovs = m.iovs[:iovs]
	if oob += n * (oobAlign - 1); cap(m.oob) < oob {
		m.oob = resident(oob)
	}
	m.oob = m.oob[:oob]
	m.iov, m.cut, m.socket = 0, 0, tsFlags{}
	return m
}

// release gives the batch back, which forgets the caller's buffers, those of messages
// that encode took off the end included.
func (m *mmsg) release() {
	clear(m.hdrs[:len(m.names)])
	clear(m.iovs)
	clear(m.errs)
	mmsgs.Put(m)
}

const oobAlign = 8

// private cuts off a private buffer for control messages.
func (m *mmsg) private(size int) []byte {
	b := m.oob[m.cut : m.cut+size : m.cut+size]
	m.cut += (size + oobAlign - 1) &^ (oobAlign - 1)
	return b
}

// buffers adds the buffers of message i.
func (m *mmsg) buffers(i int, bufs [][]byte) {
	if len(bufs) == 0 {
		return
	}
	first := m.iov
	for _, b := range bufs {
		v := &m.iovs[m.iov]
		v.Base = unsafe.SliceData(b)
		v.SetLen(len(b))
		m.iov++
	}
	m.hdrs[i].hdr.Iov = &m.iovs[first]
	m.hdrs[i].hdr.SetIovlen(len(bufs))
}

// buffer adds the buffer of message i.
func (m *mmsg) buffer(i int, b []byte) {
	v := &m.iovs[m.iov]
	m.iov++
	v.Base = unsafe.SliceData(b)
	v.SetLen(len(b))
	m.hdrs[i].hdr.Iov = v
	m.hdrs[i].hdr.SetIovlen(1)
}

// control adds the buffer for control messages, or the messages, of message i.
func (m *mmsg) control(i int, b []byte) {
	if len(b) == 0 {
		return
	}
	m.hdrs[i].hdr.Control = &b[0]
	m.hdrs[i].hdr.SetControllen(len(b))
}

// got returns the control messages that were read for message i.
func (m *mmsg) got(i int) []byte {
	h := &m.hdrs[i].hdr
	return unsafe.Slice(h.Control, int(h.Controllen))
}

// source makes room for the address of message i.
func (m *mmsg) source(i int) {
	m.hdrs[i].hdr.Name = (*byte)(unsafe.Pointer(&m.names[i]))
	m.hdrs[i].hdr.Namelen = unix.SizeofSockaddrInet6
}

func (m *mmsg) call(number, fd uintptr) (done bool) {
	for {
		n, _, errno := unix.Syscall6(number, fd, uintptr(unsafe.Pointer(&m.hdrs[0])), uintptr(len(m.hdrs)), uintptr(m.flags), 0, 0)
		if errno == unix.EINTR {
			continue
		}
		m.n, m.errno = int(n), errno
		return errno != unix.EAGAIN || m.flags&unix.MSG_DONTWAIT != 0
	}
}

// recvmmsg reads messages, and returns how many.
func (m *mmsg) recvmmsg(rc syscall.RawConn, flags int) (int, error) {
	if rc == nil {
		return 0, os.ErrInvalid
	}
	m.flags = flags
	if err := rc.Read(m.recv); err != nil {
		return 0, err
	}
	return m.result("recvmmsg")
}

// sendmmsg sends messages, and returns how many.
func (m *mmsg) sendmmsg(rc syscall.RawConn, flags int) (int, error) {
	if rc == nil {
		return 0, os.ErrInvalid
	}
	m.flags = flags
	if err := rc.Write(m.send); err != nil {
		return 0, err
	}
	return m.result("sendmmsg")
}

func (m *mmsg) result(call string) (int, error) {
	if m.errno != 0 {
		return 0, os.NewSyscallError(call, m.errno)
	}
	return m.n, nil
}

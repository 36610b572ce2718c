// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmsg is an array of struct mmsghdr.
type mmsg struct {
	hdrs []mmsghdr
	// pinned keeps what the headers point to.
	pinned []any
}

type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// add adds a message, to nowhere where to is nil.
func (b *mmsg) add(payload, oob []byte, to unix.Sockaddr) {
	iov := &unix.Iovec{Base: &payload[0]}
	iov.SetLen(len(payload))
	var m mmsghdr
	m.hdr.Iov = iov
	m.hdr.SetIovlen(1)
	if len(oob) != 0 {
		m.hdr.Control = &oob[0]
		m.hdr.SetControllen(len(oob))
	}
	if to != nil {
		name := rawSockaddr(to)
		m.hdr.Name = &name[0]
		m.hdr.Namelen = uint32(len(name))
	}
	b.hdrs = append(b.hdrs, m)
	b.pinned = append(b.pinned, iov)
}

// send sends all by one call.
func (b *mmsg) send(fd int) error {
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.hdrs[0])), uintptr(len(b.hdrs)), 0, 0, 0)
	runtime.KeepAlive(b)
	if errno != 0 {
		return os.NewSyscallError("sendmmsg", errno)
	}
	if int(n) != len(b.hdrs) {
		return fmt.Errorf("sendmmsg: %d of %d messages", n, len(b.hdrs))
	}
	return nil
}

// rawSockaddr is a struct sockaddr_in or sockaddr_in6.
func rawSockaddr(a unix.Sockaddr) []byte {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		b := binary.NativeEndian.AppendUint16(nil, unix.AF_INET)
		b = binary.BigEndian.AppendUint16(b, uint16(a.Port))
		return append(append(b, a.Addr[:]...), make([]byte, 8)...)
	case *unix.SockaddrInet6:
		b := binary.NativeEndian.AppendUint16(nil, unix.AF_INET6)
		b = binary.BigEndian.AppendUint16(b, uint16(a.Port))
		b = append(append(b, make([]byte, 4)...), a.Addr[:]...)
		return binary.NativeEndian.AppendUint32(b, a.ZoneId)
	}
	panic(fmt.Sprintf("address is %T", a))
}

// sockaddr is where the socket sends to, nil where it is connected.
func (c *rawConn) sockaddr(t testing.TB) unix.Sockaddr {
	t.Helper()
	if c.to == nil {
		return nil
	}
	var domain int
	must(t, onSocket(c, func(fd int) (err error) {
		domain, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		return err
	}))
	if domain == unix.AF_INET {
		return &unix.SockaddrInet4{Addr: [4]byte(c.to.IP.To4()), Port: c.to.Port}
	}
	return &unix.SockaddrInet6{Addr: [16]byte(net.IP(c.to.IP).To16()), Port: c.to.Port}
}

// recvBatch is an array of struct mmsghdr to receive into.
type recvBatch struct {
	mmsg
	payloads, controls, names [][]byte
}

// newRecvBatch makes one for n datagrams, with room for control messages, and for
// addresses where named is set.
func newRecvBatch(n, control int, named bool) *recvBatch {
	b := new(recvBatch)
	for range n {
		payload, oob := make([]byte, 2048), make([]byte, control)
		// Else its pages may not be there yet, see TestNativeMmsgMemory.
		for i := range oob {
			oob[i] = 0xff
		}
		b.add(payload, oob, nil)
		b.payloads, b.controls = append(b.payloads, payload), append(b.controls, oob)
		var name []byte
		if named {
			name = make([]byte, unix.SizeofSockaddrAny)
			b.hdrs[len(b.hdrs)-1].hdr.Name = &name[0]
		}
		b.names = append(b.names, name)
	}
	b.reset()
	return b
}

// reset makes it ready to receive again.
func (b *recvBatch) reset() {
	for i := range b.hdrs {
		h := &b.hdrs[i].hdr
		h.SetControllen(len(b.controls[i]))
		h.Namelen = uint32(len(b.names[i]))
		h.Flags = 0
	}
}

// recvmmsg receives what is there, and returns how many datagrams that is.
func (b *recvBatch) recvmmsg(fd int) (int, error) {
	b.reset()
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.hdrs[0])), uintptr(len(b.hdrs)), unix.MSG_WAITFORONE, 0, 0)
	runtime.KeepAlive(b)
	if errno != 0 {
		return 0, os.NewSyscallError("recvmmsg", errno)
	}
	return int(n), nil
}

// received is what the call gave in place i.
func (b *recvBatch) received(i int) datagram {
	m := &b.hdrs[i]
	return datagram{
		payload: b.payloads[i][:m.len],
		oob:     b.controls[i][:m.hdr.Controllen],
		flags:   int(m.hdr.Flags),
		namelen: int(m.hdr.Namelen),
	}
}

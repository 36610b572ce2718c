// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/internal/netlab"
)

const (
	// batchSize is how many frames one system call reads or writes.
	batchSize = 64
	// virtioSize is struct virtio_net_hdr, which is in front of each frame.
	virtioSize = 10
	// snapSize is what is read of a frame: the headers.
	snapSize = virtioSize + etherSize + maxHeaders
	// frameSize is the longest frame that is written.
	frameSize = virtioSize + etherSize + serverMTU
)

// mmsghdr is struct mmsghdr of recvmmsg(2) and sendmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// A port is the wire's end of the link to one of the hosts.
type port struct {
	fd int
	to [6]byte // the host's hardware address

	in, out       [batchSize]mmsghdr
	inIov, outIov [batchSize]unix.Iovec
	inBuf         [batchSize][snapSize]byte
	outBuf        [batchSize][frameSize]byte
	queued        int
	failed        int // frames that the kernel did not take
}

// openPort reads and writes whole frames of an interface.
func openPort(ns *netlab.Namespace, iface string) (p *port, err error) {
	p = &port{fd: -1}
	err = ns.Do(func() error {
		ifi, err := net.InterfaceByName(iface)
		if err != nil {
			return err
		}
		p.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		for _, opt := range [][2]int{{unix.PACKET_VNET_HDR, 1}, {unix.PACKET_IGNORE_OUTGOING, 1}} {
			if err := unix.SetsockoptInt(p.fd, unix.SOL_PACKET, opt[0], opt[1]); err != nil {
				return os.NewSyscallError("setsockopt", err)
			}
		}
		if err := unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
		all := uint16(unix.ETH_P_ALL)
		return os.NewSyscallError("bind", unix.Bind(p.fd, &unix.SockaddrLinklayer{
			Protocol: all<<8 | all>>8, Ifindex: ifi.Index,
		}))
	})
	for i := range batchSize {
		p.inIov[i].Base = &p.inBuf[i][0]
		p.inIov[i].SetLen(snapSize)
		p.in[i].hdr.Iov = &p.inIov[i]
		p.in[i].hdr.SetIovlen(1)
		p.outIov[i].Base = &p.outBuf[i][0]
		p.out[i].hdr.Iov = &p.outIov[i]
		p.out[i].hdr.SetIovlen(1)
	}
	return p, err
}

func (p *port) close() {
	if p.fd >= 0 {
		_ = unix.Close(p.fd)
	}
}

// receive hands on the frames that have come, and says whether there may be more.
// segment is the size of the segments that a frame stands for, 0 for one.
func (p *port) receive(f func(frame []byte, segment int)) bool {
	r, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(p.fd), uintptr(unsafe.Pointer(&p.in[0])), batchSize,
		unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return false
	}
	n := int(r)
	for i := range n {
		b := p.inBuf[i][:min(p.in[i].len, snapSize)]
		if len(b) < virtioSize+etherSize {
			continue
		}
		// struct virtio_net_hdr: flags, gso_type, hdr_len, gso_size
		segment := 0
		if b[1] != 0 {
			segment = int(*(*uint16)(unsafe.Pointer(&b[4])))
		}
		f(b[virtioSize:], segment)
	}
	return n == batchSize
}

// slot is where the next frame goes.
func (p *port) slot() []byte {
	if p.queued == batchSize {
		p.flush()
	}
	return p.outBuf[p.queued][virtioSize:]
}

// queue takes the frame of the slot.
func (p *port) queue(size int) {
	p.outIov[p.queued].SetLen(virtioSize + size)
	p.queued++
}

func (p *port) flush() {
	for sent := 0; sent < p.queued; {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(p.fd), uintptr(unsafe.Pointer(&p.out[sent])),
			uintptr(p.queued-sent), 0, 0, 0)
		switch {
		case errno == unix.EINTR:
		case errno != 0:
			// That frame is lost, as on any wire.
			p.failed++
			sent++
		default:
			sent += int(n)
		}
	}
	p.queued = 0
}

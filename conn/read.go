// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"errors"
	"net/netip"
	"os"

	"github.com/sockmeta/sockmeta-go/cmsg"
)

// A call is the system call that package net would have made.
type call int

const (
	callRead call = iota
	callRecvfrom
	callRecvmsg
)

func (c call) String() string { return [...]string{"read", "recvfrom", "recvmsg"}[c] }

// reads says whether c has a part in reading. Otherwise package net reads alone: c is no
// connection, or a plain one, whose control messages are all the caller's.
func (c *UDPConn) reads() bool { return c != nil && (c.room > 0 || c.splits()) }

// read reads one datagram. md is nil if the caller does not want the metadata. If the
// caller does, err may be about it alone.
func (c *UDPConn) read(call call, b, oob []byte, md *cmsg.Metadata) (n, oobn, flags int, addr netip.AddrPort, err error) {
	if c.splits() {
		return c.readSegment(call, b, oob, md)
	}
	var small [smallOOB]byte
	var large *oobBuffer
	buf := small[:]
	if size := len(oob) + c.room; size <= len(buf) {
		buf = buf[:size]
	} else {
		large = oobBuffers.Get().(*oobBuffer)
		buf = large.sized(size)
	}
	n, got, flags, addr, err := c.udp.ReadMsgUDPAddrPort(b, buf)
	if err != nil {
		large.release()
		if call == callRecvmsg {
			return n, 0, flags, addr, err
		}
		// It returns -1 and an address that is valid.
		return 0, 0, 0, netip.AddrPort{}, asCall(call, err)
	}
	a := c.carrier.locate(buf[:got], flags)
	c.carrier.remember(&a)
	if call == callRecvmsg {
		oobn, flags = c.messages(&a, oob, buf, got, flags)
	} else if md != nil {
		_, err = c.record(&a, md)
	}
	large.release()
	return n, oobn, flags, addr, err
}

// messages opens what came for a caller who does not want the record in a Metadata. It
// is not part of read, whose other callers need no Metadata on the stack.
//
//go:noinline
func (c *UDPConn) messages(a *arrival, oob, buf []byte, got, recvFlags int) (oobn, flags int) {
	var md cmsg.Metadata
	var socket tsFlags
	return c.open(&came{arrival: *a, got: buf[:got], left: len(buf) - got, flags: recvFlags, md: &md, socket: &socket}, oob)
}

// asCall names the system call in err, which net has made for this error.
func asCall(call call, err error) error {
	var s *os.SyscallError
	if errors.As(err, &s) {
		s.Syscall = call.String()
	}
	return err
}

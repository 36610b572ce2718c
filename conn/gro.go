// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"fmt"
	"net"
	"syscall"
)

// Segments says whether the kernel may merge datagrams of one sender that follow
// each other, which saves most of the cost of each (UDP_GRO), and how they are read
// then. Only datagrams of one size merge, and only where the sender's metadata and
// the producer's are the same, or the NIC, or a sender on this host, made one packet
// of them.
type Segments int

// How merged datagrams are read.
const (
	// SegmentsOff: the kernel merges none, as without SetGRO.
	SegmentsOff Segments = iota
	// SegmentsSplit: each read returns single datagrams, as if they had not been
	// merged, each with the source, the control messages and the record of the
	// whole. Those that a call has no room for wait in the connection for the next
	// call, of any kind. Buffers need no more room than without.
	SegmentsSplit
	// SegmentsWhole: a read returns the merged datagrams, up to 65535 bytes.
	// Message.SegmentSize has the size of each, and so has the kernel's control
	// message {SOL_UDP, UDP_GRO}, an int, for those who read control messages.
	// What does not fit into the caller's buffer is cut off.
	SegmentsWhole
)

// String returns off, split or whole.
func (s Segments) String() string {
	switch s {
	case SegmentsOff:
		return "off"
	case SegmentsSplit:
		return "split"
	case SegmentsWhole:
		return "whole"
	}
	return fmt.Sprintf("Segments(%d)", int(s))
}

// SetGRO lets the kernel merge the datagrams that the connection receives. It needs
// Linux 5.0 and no privilege; without, the error is ErrNotSupported. It works with
// and without metadata.
//
// Set it before anything is read, as ListenConfig.GRO and Dialer.GRO do: a read that
// is under way does not know of it, and what was merged before it is turned off
// comes as one datagram.
//
// With SegmentsSplit, datagrams that wait in the connection are read first; a
// deadline that has passed and Close come before them, as with package net.
// MSG_PEEK shows the next one alone. Whoever waits for the file descriptor behind
// the connection's back (SyscallConn) does not see them. An application that sets
// UDP_GRO there itself gets what the kernel gives.
func (c *UDPConn) SetGRO(s Segments) error {
	if !c.ok() {
		return syscall.EINVAL
	}
	err := c.setGRO(s)
	if err != nil {
		local := c.udp.LocalAddr()
		return &net.OpError{Op: "set", Net: local.Network(), Addr: local, Err: err}
	}
	return nil
}

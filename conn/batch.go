// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"net/netip"
	"syscall"

	"golang.org/x/net/ipv4"

	"github.com/sockmeta/sockmeta-go/cmsg"
)

// maxBatch is how many messages one call reads or writes at most, which is the
// kernel's own limit for sending (UIO_MAXIOV).
const maxBatch = 1024

// A Message is one datagram of ReadBatchMetadata and WriteBatchMetadata, or, where
// SegmentSize says so, several of one size from or to one address.
//
// It is meant to be used again: reading sets all fields but Buf and OOB, and
// writing N, NN and Err.
type Message struct {
	// Buf is what a datagram is read into, and what is sent, all of it.
	Buf []byte
	// OOB is what control messages are read into, or those that are sent. It may
	// be nil, and does not need room for sockmeta's own.
	OOB []byte

	// N is the bytes of Buf that were read or sent, NN those of OOB.
	N, NN int
	// Flags are those of recvmsg(2): MSG_TRUNC where Buf was too short for the
	// datagram, MSG_CTRUNC where OOB was for its control messages.
	Flags int

	// Addr is the source, in the form that ReadFromUDPAddrPort has, or the
	// destination. A connected socket sends to its peer where it is the zero
	// AddrPort.
	Addr netip.AddrPort

	// SegmentSize tells that Buf has datagrams that follow each other, each of
	// this many bytes but for the last, which may be shorter. 0 or less, and N or
	// more: Buf has one.
	//
	// Reading sets it with SetGRO(SegmentsWhole), and where the application has set
	// UDP_GRO itself. Sending cuts Buf by it
	// (UDP_SEGMENT, Linux 4.18): up to 64 segments (128 since Linux 6.9) that fit
	// into the path's MTU and have 65507 bytes together, else the error is EINVAL or
	// EMSGSIZE, and EIO on devices without checksum offload.
	SegmentSize int

	// Metadata is what ReadMetadata gives of the datagram, one record for all
	// segments, or what WriteMetadata sends with it: without any where it is empty.
	Metadata cmsg.Metadata
	// Err says why there is no metadata, or what became of that which was to be
	// sent: the errors of ReadMetadata and WriteMetadata that are IsMetadataError.
	// The payload was read, or sent, all the same.
	Err error
}

// A batch is the messages of one call that reads, in one of two forms; the other is
// nil.
type batch struct {
	plain []ipv4.Message
	meta  []Message
}

func (ms batch) len() int { return len(ms.plain) + len(ms.meta) }

// oob returns the caller's buffer for the control messages of message i.
func (ms batch) oob(i int) []byte {
	if ms.meta != nil {
		return ms.meta[i].OOB
	}
	return ms.plain[i].OOB
}

// ReadBatch reads up to len(ms) datagrams by one system call, recvmmsg(2), as
// golang.org/x/net/ipv4.PacketConn.ReadBatch and its ipv6 twin do: it waits for the
// first, and returns how many there were. flags are those of recvmsg(2), such as
// MSG_DONTWAIT and MSG_PEEK. At most 1024 datagrams are read.
//
// Of each it sets N, NN, Flags and Addr. Buffers may be several, and are filled one
// after the other. OOB gets what ReadMsgUDP would have put there: what the
// application asked for, SetMetadataMessage included. It needs no more room than
// on a plain socket, and may be nil.
//
// Addr is a *net.UDPAddr as ReadFrom returns it. It is shared with other
// messages, of this call and of others, and must not be changed.
//
// It allocates nothing but the addresses of new peers. Metadata returns that of
// the last datagram. Errors are those of golang.org/x/net, and n is 0 with them:
// *net.OpError, "read". On other systems than Linux one datagram is read.
func (c *UDPConn) ReadBatch(ms []ipv4.Message, flags int) (n int, err error) {
	if !c.ok() {
		return 0, syscall.EINVAL
	}
	if len(ms) == 0 {
		return 0, nil
	}
	return c.readBatch(batch{plain: ms[:min(len(ms), maxBatch)]}, flags)
}

// WriteBatch sends up to len(ms) datagrams by one system call, sendmmsg(2), as
// golang.org/x/net/ipv4.PacketConn.WriteBatch and its ipv6 twin do. It returns how
// many were sent, which may be fewer, at most 1024: call it again for the others.
// The error is that of the first, where not even that could be sent.
//
// Buffers are sent as one datagram, to Addr, a *net.UDPAddr, or, where that is nil,
// to the peer of a connected socket. OOB may have metadata as with
// WriteMsgUDPAddrPort; where it was lost, refused or cannot be sent, the error is
// that of the first such message, an IsMetadataError, and all n were sent.
//
// It allocates nothing. Errors are those of golang.org/x/net: *net.OpError,
// "write". On other systems than Linux one datagram is sent.
func (c *UDPConn) WriteBatch(ms []ipv4.Message, flags int) (n int, err error) {
	if !c.ok() {
		return 0, syscall.EINVAL
	}
	if len(ms) == 0 {
		return 0, nil
	}
	return c.writeBatch(ms[:min(len(ms), maxBatch)], flags)
}

// ReadBatchMetadata is ReadBatch with the metadata of each datagram. Where it
// cannot be had, the Message's Err says why, and the others are not concerned: the
// error of the call is about reading alone.
//
// It allocates nothing but the addresses of new peers with a zone, and needs
// Linux 6.1 for metadata as Attach does.
func (c *UDPConn) ReadBatchMetadata(ms []Message, flags int) (n int, err error) {
	if !c.ok() {
		return 0, syscall.EINVAL
	}
	if len(ms) == 0 {
		return 0, nil
	}
	return c.readBatch(batch{meta: ms[:min(len(ms), maxBatch)]}, flags)
}

// WriteBatchMetadata is WriteBatch with metadata for each datagram, as
// WriteMetadata sends it. Messages whose Metadata is empty are sent without, or
// with what OOB has. Where metadata was refused, lost or cannot be sent, the
// Message's Err says so, and the datagram was sent all the same; Err is set for the
// n that were.
//
// ms are the caller's again when it returns.
func (c *UDPConn) WriteBatchMetadata(ms []Message, flags int) (n int, err error) {
	if !c.ok() {
		return 0, syscall.EINVAL
	}
	if len(ms) == 0 {
		return 0, nil
	}
	return c.writeBatchMetadata(ms[:min(len(ms), maxBatch)], flags)
}

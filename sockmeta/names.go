// SPDX-License-Identifier: Apache-2.0

package sockmeta

import (
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/conn"
)

type (
	// UDPConn is a net.UDPConn with metadata.
	UDPConn = conn.UDPConn
	// TCPConn is a net.TCPConn with metadata.
	TCPConn = conn.TCPConn
	// TCPListener is a net.TCPListener with metadata.
	TCPListener = conn.TCPListener

	// Message is one datagram of UDPConn.ReadBatchMetadata and WriteBatchMetadata.
	Message = conn.Message
	// Segments says whether the kernel may merge datagrams, and how they are read
	// then.
	Segments = conn.Segments

	// Metadata is what a packet knew: a value with a buffer of its own, to
	// be used again and again, or copied and kept.
	Metadata = cmsg.Metadata
	// Key is the number of a value that a producer gave.
	Key = cmsg.Key
	// Flags say how a record came to be and what it may lack.
	Flags = cmsg.Flags

	// Support says what a connection can do, and why not more.
	Support = conn.Support
	// Tier says by which of the kernel's ways metadata travels.
	Tier = conn.Tier
)

// Keys with a meaning in every program. The numbers from KeyUser up to
// KeyDynamic are the application's own.
const (
	KeyPacketID  = cmsg.KeyPacketID
	KeyKtime     = cmsg.KeyKtime
	KeyServiceID = cmsg.KeyServiceID
	KeyTraceID   = cmsg.KeyTraceID
	KeyTunnelID  = cmsg.KeyTunnelID
	KeySender    = cmsg.KeySender
	KeyUser      = cmsg.KeyUser
	KeyDynamic   = cmsg.KeyDynamic
)

// The tiers, each better than the ones before it.
const (
	TierNone    = conn.TierNone
	TierHandle  = conn.TierHandle
	TierTracing = conn.TierTracing
	TierNative  = conn.TierNative
)

// How datagrams are read that the kernel merges.
const (
	SegmentsOff   = conn.SegmentsOff
	SegmentsSplit = conn.SegmentsSplit
	SegmentsWhole = conn.SegmentsWhole
)

// What metadata calls may say, for errors.Is.
var (
	// ErrNotSupported: there is no metadata here; the error says why.
	ErrNotSupported = conn.ErrNotSupported
	// ErrNoMetadata: this datagram, or these bytes, came without a record.
	ErrNoMetadata = conn.ErrNoMetadata
	// ErrOverrun: the record was lost to newer packets.
	ErrOverrun = conn.ErrOverrun
	// ErrTruncated: the record is there, but its end was cut off, or all of it
	// (MSG_CTRUNC).
	ErrTruncated = conn.ErrTruncated
	// ErrRefused: sent without what the policy does not allow it to ask for.
	ErrRefused = conn.ErrRefused
)

// IsMetadataError reports whether err is about metadata alone: a call that
// returned it has delivered its payload, or sent it.
func IsMetadataError(err error) bool { return conn.IsMetadataError(err) }

// The compiler exports what it inlines, so that who uses UDPConn by this
// package's name for it can have ReadFromUDP inlined, too.
var _ = func(c *UDPConn) { _, _, _ = c.ReadFromUDP(nil) }

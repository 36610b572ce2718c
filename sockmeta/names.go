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

	// Format says what an area's bytes are.
	Format = cmsg.Format

	// Support says what a connection can do, and why not more.
	Support = conn.Support
	// Tier says by which of the kernel's ways metadata travels.
	Tier = conn.Tier
	// Missing says why a tier is not in use.
	Missing = conn.Missing
)

// Keys with a meaning in every program. The numbers from KeyUser up to
// KeyDynamic are the application's own.
const (
	KeyPad       = cmsg.KeyPad
	KeyAnchor    = cmsg.KeyAnchor
	KeyPacketID  = cmsg.KeyPacketID
	KeyKtime     = cmsg.KeyKtime
	KeyServiceID = cmsg.KeyServiceID
	KeyTraceID   = cmsg.KeyTraceID
	KeyTunnelID  = cmsg.KeyTunnelID
	KeySender    = cmsg.KeySender
	KeyUser      = cmsg.KeyUser
	KeyDynamic   = cmsg.KeyDynamic
)

// What a record may lack, and how it came to be.
const (
	FlagUnanchored   = cmsg.FlagUnanchored
	FlagDecapsulated = cmsg.FlagDecapsulated
	FlagUnreadable   = cmsg.FlagUnreadable
	FlagAggregate    = cmsg.FlagAggregate
	FlagSynAck       = cmsg.FlagSynAck
	FlagHandshakeAck = cmsg.FlagHandshakeAck
	FlagRepeated     = cmsg.FlagRepeated
	FlagTruncated    = cmsg.FlagTruncated
	FlagUnproven     = cmsg.FlagUnproven
	FlagSenderLost   = cmsg.FlagSenderLost
)

// The formats of an area.
const (
	FormatTLV    = cmsg.FormatTLV
	FormatStruct = cmsg.FormatStruct
	FormatRaw    = cmsg.FormatRaw
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

// What methods of Metadata may say, for errors.Is.
var (
	// ErrMalformed: bytes that are no record, or no area.
	ErrMalformed = cmsg.ErrMalformed
	// ErrTooLarge: a value or an area that a record has no room for.
	ErrTooLarge = cmsg.ErrTooLarge
	// ErrKeyReserved: a key that no application may set.
	ErrKeyReserved = cmsg.ErrKeyReserved
	// ErrVersion: a record of another version.
	ErrVersion = cmsg.ErrVersion
	// ErrFormat: an area whose format is not what the operation needs.
	ErrFormat = cmsg.ErrFormat
)

// IsMetadataError reports whether err is about metadata alone: a call that
// returned it has delivered its payload, or sent it.
func IsMetadataError(err error) bool { return conn.IsMetadataError(err) }

// The compiler exports what it inlines, so that who uses UDPConn by this
// package's name for it can have ReadFromUDP inlined, too.
var _ = func(c *UDPConn) { _, _, _ = c.ReadFromUDP(nil) }

// SPDX-License-Identifier: Apache-2.0

package cmsg

import (
	"strconv"

	"github.com/sockmeta/sockmeta-go/internal/abi"
)

// Flags say how a record came to be and what it may lack: enum sockmeta_flag.
// Bits without a name here come from newer programs.
type Flags uint16

// The flags of a record.
const (
	// FlagUnanchored: the area does not end in the host's secret, it may be made up, or of
	// another producer and another format.
	FlagUnanchored = Flags(abi.FlagUnanchored)

	// FlagDecapsulated: there was an area, but the packet was decapsulated
	// after it was written, so that its place is no longer known.
	FlagDecapsulated = Flags(abi.FlagDecapsulated)

	// FlagUnreadable: there was an area, and it could not be read.
	FlagUnreadable = Flags(abi.FlagUnreadable)

	// FlagAggregate: the record stands for several segments that GRO merged.
	FlagAggregate = Flags(abi.FlagAggregate)

	// FlagSynAck: TCP, the record is of the SYN-ACK that answered our SYN.
	FlagSynAck = Flags(abi.FlagSynAck)

	// FlagHandshakeAck: TCP, the SYN's record was lost, to a SYN cookie or a
	// full table, and this one is of the segment that completed the
	// handshake.
	FlagHandshakeAck = Flags(abi.FlagHandshakeAck)

	// FlagRepeated: TCP, several segments had these bytes, and any of them may
	// have brought them. It comes with FlagUnproven.
	FlagRepeated = Flags(abi.FlagRepeated)

	// FlagTruncated: the area did not fit into what carried the record, its
	// end is missing. See [Metadata.Err].
	FlagTruncated = Flags(abi.FlagTruncated)

	// FlagUnproven: TCP, the record is of the most likely segment, but it cannot be
	// shown that TCP took that one and no other. Treat it as a hint.
	FlagUnproven = Flags(abi.FlagUnproven)

	// FlagSenderLost: the sender, a socket of this host, gave metadata that was
	// lost on the way or had no room here, see [Metadata.Sender].
	FlagSenderLost = Flags(abi.FlagSenderLost)
)

// areaFlags are about the area, and fall when there is a new one.
const areaFlags = FlagUnanchored | FlagDecapsulated | FlagUnreadable | FlagTruncated

var flagNames = [...]struct {
	flag Flags
	name string
}{
	{FlagUnanchored, "unanchored"},
	{FlagDecapsulated, "decapsulated"},
	{FlagUnreadable, "unreadable"},
	{FlagAggregate, "aggregate"},
	{FlagSynAck, "synack"},
	{FlagHandshakeAck, "handshake_ack"},
	{FlagRepeated, "repeated"},
	{FlagTruncated, "truncated"},
	{FlagUnproven, "unproven"},
	{FlagSenderLost, "sender_lost"},
}

// Has reports whether all of flags are set.
func (f Flags) Has(flags Flags) bool { return f&flags == flags }

// String returns the names of the flags that are set with | between them, bits
// without a name in hexadecimal at the end, and none if no bit is set.
func (f Flags) String() string {
	if f == 0 {
		return "none"
	}
	var b []byte
	for _, n := range flagNames {
		if f.Has(n.flag) {
			b = append(b, n.name...)
			b = append(b, '|')
			f &^= n.flag
		}
	}
	if f != 0 {
		b = append(b, "0x"...)
		return string(strconv.AppendUint(b, uint64(f), 16))
	}
	return string(b[:len(b)-1])
}

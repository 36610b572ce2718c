// SPDX-License-Identifier: Apache-2.0

package bpf

import "unsafe"

// SOL_BPF is the level of sockmeta's socket options and control messages. The
// number is the one that the talk "Marking Packets With Rich Metadata" (LPC
// 2024) proposes; no released kernel uses it.
const SOL_BPF = 0xEB9F

// ABI is the version of what crosses the border to the programs
// (include/sockmeta_abi.h). Programs of another version do not answer.
const ABI = uint32(sockoptSockmetaConstSOCKMETA_ABI)

// AreaMax is the most bytes that a producer can put in front of a packet. Linux 6.1
// allows 32 of them, and drivers may have room for less.
const AreaMax = int(sockoptSockmetaConstSOCKMETA_AREA_MAX)

// RecordVersion is the version of the records that this package's programs
// write.
const RecordVersion = uint8(sockoptSockmetaConstSOCKMETA_RECORD_VERSION)

// The types of include/sockmeta_abi.h, in host byte order.
type (
	// Record is what a packet knew, with the producer's area.
	Record = sockoptSockmetaRecord
	// Slot is one element of the receive map.
	Slot = sockoptSockmetaSlot
	// Answer is what the option OptSlot returns.
	Answer = sockoptSockmetaAnswer
	// Info is what the option OptInfo returns.
	Info = sockoptSockmetaInfo
	// TxSlot is one of a process's transmit slots.
	TxSlot = sockoptSockmetaTxSlot
	// TxInfo is what the option OptTxInfo returns.
	TxInfo = sockoptSockmetaTxInfo
	// Counts say what became of the records that were sent, in packets unless
	// they say otherwise, since the programs were attached. Full and UserFull say
	// how often a socket was to go without metadata because of Options.MaxSockets and
	// MaxSocketsPerUser.
	Counts = sockoptSockmetaCounts

	room          = sockoptSockmetaRoom
	bounds        = sockoptSockmetaBounds
	enableRequest = sockoptSockmetaEnable
	slotsRequest  = sockoptSockmetaTxSlots
	policy        = sockoptSockmetaPolicy
	instance      = sockoptSockmetaInstance
	localDev      = sockoptSockmetaLocalDev
)

// RecordWords is the size of a Record in words of 8 bytes.
const RecordWords = int(unsafe.Sizeof(Record{}) / 8)

// Words returns how many words of a Record are in use.
func Words(rec *[RecordWords]uint64) int {
	r := (*Record)(unsafe.Pointer(rec))
	return min((int(r.HdrLen)+int(r.AreaLen)+7)/8, RecordWords)
}

// Bits of Record.Valid: which built-in fields hold a value.
const (
	ValidTstamp   = uint16(sockoptSockmetaValidSOCKMETA_VALID_TSTAMP)
	ValidHWTstamp = uint16(sockoptSockmetaValidSOCKMETA_VALID_HWTSTAMP)
	ValidMark     = uint16(sockoptSockmetaValidSOCKMETA_VALID_MARK)
	ValidPriority = uint16(sockoptSockmetaValidSOCKMETA_VALID_PRIORITY)
	ValidHash     = uint16(sockoptSockmetaValidSOCKMETA_VALID_HASH)
	ValidVLAN     = uint16(sockoptSockmetaValidSOCKMETA_VALID_VLAN)
	ValidIfIndex  = uint16(sockoptSockmetaValidSOCKMETA_VALID_IFINDEX)
	ValidNAPIID   = uint16(sockoptSockmetaValidSOCKMETA_VALID_NAPI_ID)
	ValidCPU      = uint16(sockoptSockmetaValidSOCKMETA_VALID_CPU)
	ValidLaunch   = uint16(sockoptSockmetaValidSOCKMETA_VALID_LAUNCH)
)

// Bits of Record.Flags: what a reader should know about the record.
const (
	FlagUnanchored   = uint16(sockoptSockmetaFlagSOCKMETA_F_UNANCHORED)
	FlagDecapsulated = uint16(sockoptSockmetaFlagSOCKMETA_F_DECAPSULATED)
	FlagUnreadable   = uint16(sockoptSockmetaFlagSOCKMETA_F_UNREADABLE)
	FlagAggregate    = uint16(sockoptSockmetaFlagSOCKMETA_F_AGGREGATE)
	FlagSynAck       = uint16(sockoptSockmetaFlagSOCKMETA_F_SYNACK)
	FlagHandshakeAck = uint16(sockoptSockmetaFlagSOCKMETA_F_HANDSHAKE_ACK)
	FlagRepeated     = uint16(sockoptSockmetaFlagSOCKMETA_F_REPEATED)
	FlagTruncated    = uint16(sockoptSockmetaFlagSOCKMETA_F_TRUNCATED)
	FlagUnproven     = uint16(sockoptSockmetaFlagSOCKMETA_F_UNPROVEN)
	FlagSenderLost   = uint16(sockoptSockmetaFlagSOCKMETA_F_SENDER_LOST)
)

// Values of Record.Format.
const (
	FormatTLV    = uint8(sockoptSockmetaFormatSOCKMETA_FORMAT_TLV)
	FormatStruct = uint8(sockoptSockmetaFormatSOCKMETA_FORMAT_STRUCT)
	FormatRaw    = uint8(sockoptSockmetaFormatSOCKMETA_FORMAT_RAW)
)

// Names of the options at level SOL_BPF.
const (
	OptEnable     = int(sockoptSockmetaOptSOCKMETA_OPT_ENABLE)
	OptInfo       = int(sockoptSockmetaOptSOCKMETA_OPT_INFO)
	OptTCPRead    = int(sockoptSockmetaOptSOCKMETA_OPT_TCP_READ)
	OptTCPOpening = int(sockoptSockmetaOptSOCKMETA_OPT_TCP_OPENING)
	OptTCPLatest  = int(sockoptSockmetaOptSOCKMETA_OPT_TCP_LATEST)
	OptTxRecord   = int(sockoptSockmetaOptSOCKMETA_OPT_TX_RECORD)
	OptTxSlots    = int(sockoptSockmetaOptSOCKMETA_OPT_TX_SLOTS)
	OptTxInfo     = int(sockoptSockmetaOptSOCKMETA_OPT_TX_INFO)
	// OptSlot has the slot's index added.
	OptSlot = int(sockoptSockmetaOptSOCKMETA_OPT_SLOT)
)

// Keys of the values that producers give (include/sockmeta.h).
const (
	KeyPad       = uint8(sockoptSockmetaKeySOCKMETA_KEY_PAD)
	KeyPacketID  = uint8(sockoptSockmetaKeySOCKMETA_KEY_PACKET_ID)
	KeyKtime     = uint8(sockoptSockmetaKeySOCKMETA_KEY_KTIME)
	KeyServiceID = uint8(sockoptSockmetaKeySOCKMETA_KEY_SERVICE_ID)
	KeyTraceID   = uint8(sockoptSockmetaKeySOCKMETA_KEY_TRACE_ID)
	KeyTunnelID  = uint8(sockoptSockmetaKeySOCKMETA_KEY_TUNNEL_ID)
	KeySender    = uint8(sockoptSockmetaKeySOCKMETA_KEY_SENDER)
	KeyUser      = uint8(sockoptSockmetaKeySOCKMETA_KEY_USER)
	KeyDynamic   = uint8(sockoptSockmetaKeySOCKMETA_KEY_DYNAMIC)
	KeyAnchor    = uint8(sockoptSockmetaKeySOCKMETA_KEY_ANCHOR)
)

// The anchor at an area's end: its size in bytes, and the third of them.
const (
	AnchorSize  = int(sockoptSockmetaAnchorSOCKMETA_ANCHOR_SIZE)
	AnchorMagic = uint8(sockoptSockmetaAnchorSOCKMETA_ANCHOR_MAGIC)
)

// HandleBit tells a handle from a timestamp: it is set in every handle, and in
// no time in nanoseconds since 1970 before the year 2116.
const HandleBit = uint64(1) << 62

const indexMask = uint64(1)<<sockoptSockmetaConstSOCKMETA_INDEX_BITS - 1

// Bits of Info.Features.
const (
	// TracingFeature: raw control messages are read, by programs that are
	// attached to functions of the kernel.
	TracingFeature = uint32(sockoptSockmetaFeatureSOCKMETA_FEATURE_TRACING)
	// NativeFeature: raw control messages are read, and sockets that ask for it
	// (EnableCmsg) get records as such.
	NativeFeature = uint32(sockoptSockmetaFeatureSOCKMETA_FEATURE_NATIVE)
	// FaultInFeature: recvmsg waits for memory before it waits for a datagram, so
	// that no record is lost where the buffer for control messages is not there.
	FaultInFeature = uint32(sockoptSockmetaFeatureSOCKMETA_FEATURE_FAULT_IN)
)

// enableAsk is the flag of OptEnable that leaves the socket as it is.
const enableAsk = uint32(sockoptSockmetaEnableFlagSOCKMETA_ENABLE_ASK)

// EnableCmsg is the flag of OptEnable that asks for records as control messages.
const EnableCmsg = uint32(sockoptSockmetaEnableFlagSOCKMETA_ENABLE_CMSG)

// A transmit slot's number: its index, how often it was used, and above them
// which process it is of.
const (
	txIndexBits = int(sockoptSockmetaConstSOCKMETA_TX_INDEX_BITS)
	txUseBits   = int(sockoptSockmetaConstSOCKMETA_TX_USE_BITS)
	txSlots     = 1 << txIndexBits
)

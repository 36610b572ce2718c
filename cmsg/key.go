// SPDX-License-Identifier: Apache-2.0

package cmsg

import (
	"strconv"

	"github.com/sockmeta/sockmeta-go/internal/abi"
)

// A Key says what a TLV holds. Keys 1 to 15 mean the same in every program, 16
// to 127 are the user's, 0 and 255 belong to the area itself. 128 to 254 are kept for
// keys by name, which nothing gives out yet. See bpf/include/sockmeta.h.
type Key uint8

// Keys with a fixed meaning, and where ranges start. Numbers are in host byte
// order.
const (
	KeyPad       = Key(abi.KeyPad)       // padding, is skipped
	KeyPacketID  = Key(abi.KeyPacketID)  // uint64, CPU in the upper 16 bits, counts up on each
	KeyKtime     = Key(abi.KeyKtime)     // uint64, ns, CLOCK_MONOTONIC
	KeyServiceID = Key(abi.KeyServiceID) // uint32
	KeyTraceID   = Key(abi.KeyTraceID)   // 16 bytes, trace-id of W3C Trace Context
	KeyTunnelID  = Key(abi.KeyTunnelID)  // uint64, VNI or GRE key
	KeySender    = Key(abi.KeySender)    // TLVs that the sender gave, see [Metadata.Sender]
	KeyUser      = Key(abi.KeyUser)      // first of the user's
	KeyDynamic   = Key(abi.KeyDynamic)   // first of those kept for keys by name
	KeyAnchor    = Key(abi.KeyAnchor)    // ends the area, see [AnchorFormat]
)

// String returns the name of a key with a fixed meaning, packet_id for one, and
// the number in decimal of others.
func (k Key) String() string {
	switch k {
	case KeyPad:
		return "pad"
	case KeyPacketID:
		return "packet_id"
	case KeyKtime:
		return "ktime"
	case KeyServiceID:
		return "service_id"
	case KeyTraceID:
		return "trace_id"
	case KeyTunnelID:
		return "tunnel_id"
	case KeySender:
		return "sender"
	case KeyAnchor:
		return "anchor"
	}
	return strconv.Itoa(int(k))
}

func (k Key) reserved() bool { return k == KeyPad || k == KeyAnchor }

// numberLen returns the length in bytes of the number that the key stands for,
// 0 if it stands for none.
func (k Key) numberLen() int {
	switch k {
	case KeyPacketID, KeyKtime, KeyTunnelID:
		return 8
	case KeyServiceID:
		return 4
	}
	return 0
}

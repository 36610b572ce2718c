// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"encoding/binary"

	"github.com/sockmeta/sockmeta-go/cmsg"
)

// msgCtrunc is MSG_CTRUNC: a control message was cut, or left out.
const msgCtrunc = 0x8

// isRecord tells the control message with a record.
func isRecord(m cmsg.Message) bool {
	return m.Level == cmsg.SOL_BPF && m.Type == cmsg.SCM_RECORD
}

// isSegmentSize tells the control message of a receiver with UDP_GRO.
func isSegmentSize(m cmsg.Message) bool { return m.Level == solUDP && m.Type == udpGRO }

// segmentSize returns the size of the segments that GRO has merged, 0 if it has merged
// none.
func segmentSize(got []byte) int {
	data, ok := cmsg.Find(got, solUDP, udpGRO)
	if !ok || len(data) < 4 {
		return 0
	}
	return int(int32(binary.NativeEndian.Uint32(data)))
}

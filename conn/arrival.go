// SPDX-License-Identifier: Apache-2.0

package conn

import "github.com/sockmeta/sockmeta-go/cmsg"

// An arrival is what the control messages of a datagram say of its record.
type arrival struct {
	// handle stands for the record, and is where the packet's time should be; 0 if
	// there is none.
	handle uint64
	// record is the record itself if it came as a control message.
	record []byte
	// cut says that the kernel did not get the record into the buffer.
	cut bool
}

// callersFlags returns recvmsg's flags without an MSG_CTRUNC that is about the record
// alone. left is how many bytes of the buffer are free: had a message of the caller's
// been cut, there would be no room left.
func (a *arrival) callersFlags(flags, left int) int {
	if a.cut && left >= cmsg.Space(0) {
		return flags &^ msgCtrunc
	}
	return flags
}

// isAll says whether the handle is all that came.
func (a *arrival) isAll(got []byte) bool { return len(got) == handleSpace && a.handle != 0 }

// handleSpace is the size of the control message with the handle.
var handleSpace = cmsg.Space(timestampingLen)

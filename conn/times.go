// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"time"

	"github.com/sockmeta/sockmeta-go/cmsg"
)

// times is a control message with times, in which the kernel put the handle
// where the packet's time should be.
type times struct {
	kind    kind
	msg     cmsg.Message
	handle  uint64 // 0: what the kernel put are times
	tsflags uint32 // what the application asked of SO_TIMESTAMPING
	tstamp  time.Time
	known   bool // tstamp is valid
	lost    bool // there was a time, perhaps, and it is lost
}

// translate writes what the application asked for to data, and returns its
// length, 0 where there is nothing to tell.
func (t *times) translate(data *[timestampingLen]byte) int {
	switch {
	case t.kind == kindTimestamping:
		return t.timestamping(data)
	case t.handle == 0:
		return copy(data[:], t.msg.Data)
	case t.lost:
		return 0
	case !t.known:
		// The application asked after the packet had arrived. The kernel
		// fills in the current time then, and so do we.
		return putTime(data[:], time.Now(), t.kind, len(t.msg.Data))
	}
	return putTime(data[:], t.tstamp, t.kind, len(t.msg.Data))
}

// timestamping filters as __sock_recv_timestamp (net/socket.c) does, which did
// so by flags that include sockmeta's.
func (t *times) timestamping(data *[timestampingLen]byte) int {
	found := false
	if wants(t.tsflags, tsSoftware, tsRxSoftware) {
		switch {
		case t.handle == 0:
			found = copyTime(data[:], t.msg.Data, 0)
		case t.known:
			putTimespec(data[:], t.tstamp)
			found = true
		}
	}
	if wants(t.tsflags, tsRawHardware, tsRxHardware) && copyTime(data[:], t.msg.Data, 2) {
		found = true
	}
	if !found {
		return 0
	}
	return timestampingLen
}

// wants says whether the flags ask for a kind of timestamp on received packets.
func wants(flags, report, take uint32) bool {
	return flags&report != 0 && (flags&take != 0 || flags&tsRxFilter == 0)
}

// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"testing"

	"github.com/sockmeta/sockmeta-go/cmsg"
)

// A queued is a control message that the kernel puts for a datagram.
type queued struct {
	name string
	// size is that of its data.
	size int
}

// timesQueued are those of __sock_recv_timestamp in net/socket.c, in its order.
var timesQueued = []queued{
	{"SO_TIMESTAMP or SO_TIMESTAMPNS, of either age", timespecLen},
	{"SCM_TIMESTAMPING_PKTINFO, struct scm_ts_pktinfo", 16},
	{"SCM_TIMESTAMPING, which has the handle", timestampingLen},
}

// socketQueued follow in __sock_recv_cmsgs.
var socketQueued = []queued{
	{"SO_RXQ_OVFL", 4},
	{"SO_RCVMARK", 4},
	{"SO_RCVPRIORITY", 4},
}

// groQueued is udp_cmsg_recv's in include/linux/udp.h, before those of IP.
var groQueued = []queued{{"UDP_GRO", 4}}

func space(groups ...[]queued) (n int) {
	for _, g := range groups {
		for _, q := range g {
			n += cmsg.Space(q.size)
		}
	}
	return n
}

// TestRoom has room for sockmeta's own control message, whatever the application asks
// for that comes before it and however little room it gives. Where messages take as much
// as on 64-bit systems, there is no room to spare.
func TestRoom(t *testing.T) {
	const wide = 16
	own := cmsg.MetadataSpace
	for _, tt := range []struct {
		name string
		have int
		want int
	}{
		{"the handle", handleOOB, space(timesQueued)},
		{"the record", nativeOOB, space(timesQueued, socketQueued) + own},
		{"the size of segments, on a plain socket", sizedRoom(none{}.room()), space(timesQueued, socketQueued, groQueued)},
		{"the size of segments, behind the handle", sizedRoom(new(mapped).room()), space(timesQueued, socketQueued, groQueued)},
		{"the size of segments, behind the handle, asked", sizedRoom(new(asked).room()), space(timesQueued, socketQueued, groQueued)},
		{"the size of segments, behind the record", sizedRoom(new(native).room()), space(timesQueued, socketQueued, groQueued) + own},
	} {
		if tt.have < tt.want || cmsg.HeaderLen == wide && tt.have != tt.want {
			t.Errorf("%s: room for %d bytes, the kernel puts %d", tt.name, tt.have, tt.want)
		}
	}
	for name, c := range map[string]carrier{"mapped": new(mapped), "asked": new(asked)} {
		if c.room() > smallOOB {
			t.Errorf("%s: %d bytes are not on the stack", name, c.room())
		}
	}
	if nativeOOB > largeOOB {
		t.Errorf("native: %d bytes are not kept", nativeOOB)
	}
}

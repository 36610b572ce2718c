// SPDX-License-Identifier: Apache-2.0

package conn

import "github.com/sockmeta/sockmeta-go/cmsg"

// Room for control messages. The kernel writes them in one order: __sock_recv_cmsgs in
// net/socket.c, the programs at recvmsg, then udp_cmsg_recv. All others follow.
const (
	// handleOOB has room for SO_TIMESTAMP, SCM_TIMESTAMPING_PKTINFO and
	// SCM_TIMESTAMPING, which has the handle.
	handleOOB = 128
	// socketOOB adds SO_RXQ_OVFL, SO_RCVMARK and SO_RCVPRIORITY.
	socketOOB = handleOOB + 72
	// nativeOOB adds the record of the native tier.
	nativeOOB = socketOOB + cmsg.MetadataSpace
	// groOOB is the room for UDP_GRO.
	groOOB = 24
)

// sizedRoom is the room, given the carrier's, for calls that also want the size of the
// segments that were merged, whoever asked for it.
func sizedRoom(carriers int) int { return max(carriers, socketOOB) + groOOB }

// resident returns bytes whose pages are present: recvmsg of the native tier does not
// wait for pages to put a record into. Nobody else makes them present for the second
// message of recvmmsg on, or if abi.FeatureFaultIn is missing.
func resident(n int) []byte {
	b := make([]byte, n)
	for at := 0; at < n; at += minPage {
		b[at] = 0
	}
	if n > 0 {
		b[n-1] = 0
	}
	return b
}

// minPage is the smallest page that Linux has.
const minPage = 4096

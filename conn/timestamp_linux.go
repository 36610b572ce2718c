// SPDX-License-Identifier: Apache-2.0

package conn

import "golang.org/x/sys/unix"

const (
	solSocket          = unix.SOL_SOCKET
	solUDP             = unix.SOL_UDP
	udpGRO             = unix.UDP_GRO
	scmTxtime          = unix.SCM_TXTIME
	scmTimestampOld    = unix.SO_TIMESTAMP
	scmTimestampNew    = unix.SO_TIMESTAMP_NEW
	scmTimestampnsOld  = unix.SO_TIMESTAMPNS
	scmTimestampnsNew  = unix.SO_TIMESTAMPNS_NEW
	scmTimestampingOld = unix.SO_TIMESTAMPING
	scmTimestampingNew = unix.SO_TIMESTAMPING_NEW
)

// applicationFlags asks the kernel what the application wants of SO_TIMESTAMPING;
// the programs leave out what sockmeta added.
func applicationFlags(fd int) uint32 {
	var v [2]uint32
	if err := getsockopt(fd, unix.SO_TIMESTAMPING, &v); err != nil {
		return 0
	}
	return v[0]
}

// SPDX-License-Identifier: Apache-2.0

package conn

import "golang.org/x/sys/unix"

const (
	solSocket          = unix.SOL_SOCKET
	scmTxtime          = unix.SCM_TXTIME
	scmTimestampOld    = unix.SO_TIMESTAMP
	scmTimestampNew    = unix.SO_TIMESTAMP_NEW
	scmTimestampnsOld  = unix.SO_TIMESTAMPNS
	scmTimestampnsNew  = unix.SO_TIMESTAMPNS_NEW
	scmTimestampingOld = unix.SO_TIMESTAMPING
	scmTimestampingNew = unix.SO_TIMESTAMPING_NEW
)

func applicationFlags(fd int) uint32 {
	ts, err := getTimestamping(fd)
	if err != nil {
		return 0
	}
	return ts.flags
}

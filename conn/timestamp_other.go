// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package conn

// Of Linux on most architectures; nothing has these types where no socket opts
// in.
const (
	solSocket          = 1
	solUDP             = 17
	udpGRO             = 104
	scmTxtime          = 61
	scmTimestampOld    = 29
	scmTimestampNew    = 63
	scmTimestampnsOld  = 35
	scmTimestampnsNew  = 64
	scmTimestampingOld = 37
	scmTimestampingNew = 65
)

func applicationFlags(int) uint32 { return 0 }

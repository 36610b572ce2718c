// SPDX-License-Identifier: Apache-2.0

package cmsg

import "github.com/sockmeta/sockmeta-go/bpf"

// What bpf2go generates from bpf/include/sockmeta_abi.h.

type record = bpf.Record

const (
	formatTLV    = bpf.FormatTLV
	formatStruct = bpf.FormatStruct
	formatRaw    = bpf.FormatRaw

	validTstamp   = bpf.ValidTstamp
	validHwtstamp = bpf.ValidHWTstamp
	validMark     = bpf.ValidMark
	validPriority = bpf.ValidPriority
	validHash     = bpf.ValidHash
	validVlan     = bpf.ValidVLAN
	validIfindex  = bpf.ValidIfIndex
	validNapiID   = bpf.ValidNAPIID
	validCPU      = bpf.ValidCPU
	validLaunch   = bpf.ValidLaunch

	flagUnanchored   = bpf.FlagUnanchored
	flagDecapsulated = bpf.FlagDecapsulated
	flagUnreadable   = bpf.FlagUnreadable
	flagAggregate    = bpf.FlagAggregate
	flagSynAck       = bpf.FlagSynAck
	flagHandshakeAck = bpf.FlagHandshakeAck
	flagRepeated     = bpf.FlagRepeated
	flagTruncated    = bpf.FlagTruncated
	flagUnproven     = bpf.FlagUnproven
	flagSenderLost   = bpf.FlagSenderLost
)

// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"encoding/binary"
	"time"

	"github.com/sockmeta/sockmeta-go/cmsg"
)

// The flags of include/uapi/linux/net_tstamp.h, and the size of
// struct scm_timestamping64.
const (
	tsRxHardware  = 1 << 2
	tsRxSoftware  = 1 << 3
	tsSoftware    = 1 << 4
	tsRawHardware = 1 << 6
	tsRxFilter    = 1 << 17

	timestampingLen = 3 * timespecLen
	timespecLen     = 16
)

// A kind is what a control message is to those who hand it on.
type kind int

const (
	kindOther kind = iota
	// kindOwn is the carrier's, and not for the caller.
	kindOwn
	kindTimestamping
	kindTimeval
	kindTimespec
)

// timespec reads the first time as nanoseconds. Sizes and order are those of
// struct __kernel_timespec; on 64-bit systems the old types are the same.
func timespec(b []byte) uint64 {
	return binary.NativeEndian.Uint64(b)*1e9 + binary.NativeEndian.Uint64(b[8:])
}

// firstTime returns the first time in a message as nanoseconds, 0 where it has none.
func firstTime(m cmsg.Message) uint64 {
	k := kindOf(m)
	if k == kindOther || len(m.Data) < timespecLen {
		return 0
	}
	if k == kindTimeval {
		return binary.NativeEndian.Uint64(m.Data)*1e9 + binary.NativeEndian.Uint64(m.Data[8:])*1e3
	}
	return timespec(m.Data)
}

func putTimespec(b []byte, t time.Time) {
	binary.NativeEndian.PutUint64(b, uint64(t.Unix()))
	binary.NativeEndian.PutUint64(b[8:], uint64(t.Nanosecond()))
}

// putTime writes a timeval or timespec of size bytes, and returns size.
func putTime(b []byte, t time.Time, k kind, size int) int {
	fraction := uint64(t.Nanosecond())
	if k == kindTimeval {
		fraction /= 1000
	}
	if size < timespecLen {
		binary.NativeEndian.PutUint32(b, uint32(t.Unix()))
		binary.NativeEndian.PutUint32(b[4:], uint32(fraction))
		return 8
	}
	binary.NativeEndian.PutUint64(b, uint64(t.Unix()))
	binary.NativeEndian.PutUint64(b[8:], fraction)
	return timespecLen
}

// copyTime copies the i-th time of a struct scm_timestamping64, and reports
// whether it is set.
func copyTime(dst, src []byte, i int) bool {
	from := src[i*timespecLen : (i+1)*timespecLen]
	copy(dst[i*timespecLen:], from)
	return timespec(from) != 0
}

// kindOf tells messages with times, of the length that makes them readable.
func kindOf(m cmsg.Message) kind {
	if m.Level != solSocket {
		return kindOther
	}
	switch m.Type {
	case scmTimestampingOld, scmTimestampingNew:
		if len(m.Data) >= timestampingLen {
			return kindTimestamping
		}
	case scmTimestampOld, scmTimestampNew:
		return kindTimeval
	case scmTimestampnsOld, scmTimestampnsNew:
		return kindTimespec
	}
	return kindOther
}

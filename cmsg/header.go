// SPDX-License-Identifier: Apache-2.0

package cmsg

import (
	"encoding/binary"
	"unsafe"
)

// struct cmsghdr in include/linux/socket.h is { size_t len; int level; int type; },
// and everything is aligned to sizeof(size_t).
const (
	align     = int(unsafe.Sizeof(uintptr(0)))
	headerLen = align + 8
)

// HeaderLen is the length in bytes of a control message's header, struct
// cmsghdr: 16 where pointers have 64 bits, 12 where they have 32.
const HeaderLen = headerLen

// Len returns what the header of a control message with n bytes of data says
// about its length: header and data without the padding behind them. It is
// CMSG_LEN of cmsg(3), n must not be negative.
func Len(n int) int { return headerLen + n }

// Space returns how many bytes a control message with n bytes of data takes,
// padding included: a multiple of the pointer size. It is CMSG_SPACE of
// cmsg(3), n must not be negative.
func Space(n int) int { return headerLen + alignUp(n) }

func alignUp(n int) int { return (n + align - 1) &^ (align - 1) }

// getLen needs headerLen bytes, as the other accessors do. The length is any
// number: it comes unchecked.
func getLen(b []byte) uint64 {
	if align == 8 {
		return binary.NativeEndian.Uint64(b)
	}
	return uint64(binary.NativeEndian.Uint32(b))
}

func getLevel(b []byte) int32 { return int32(binary.NativeEndian.Uint32(b[align:])) }

func getType(b []byte) int32 { return int32(binary.NativeEndian.Uint32(b[align+4:])) }

func putHeader(b []byte, n, level, typ int) {
	b = b[:headerLen]
	if align == 8 {
		binary.NativeEndian.PutUint64(b, uint64(n))
	} else {
		binary.NativeEndian.PutUint32(b, uint32(n))
	}
	binary.NativeEndian.PutUint32(b[align:], uint32(level))
	binary.NativeEndian.PutUint32(b[align+4:], uint32(typ))
}

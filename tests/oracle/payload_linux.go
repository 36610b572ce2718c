// SPDX-License-Identifier: Apache-2.0

package main

import "encoding/binary"

// Every frame brings bytes of its own: byte number off of the stream, brought by
// frame number id, is contentByte(id, off). So what the application reads tells
// which of several frames with the same range TCP took each byte from.

// contentWord has the eight bytes from 8*block on.
func contentWord(id, block uint32) uint64 {
	x := uint64(id)<<32 | uint64(block)
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

func contentByte(id, off uint32) byte {
	return byte(contentWord(id, off>>3) >> (off & 7 * 8))
}

// fillContent writes a frame's bytes from off on.
func fillContent(b []byte, id, off uint32) {
	for ; len(b) > 0 && off&7 != 0; off++ {
		b[0] = contentByte(id, off)
		b = b[1:]
	}
	for ; len(b) >= 8; off += 8 {
		binary.LittleEndian.PutUint64(b, contentWord(id, off>>3))
		b = b[8:]
	}
	for i := range b {
		b[i] = contentByte(id, off+uint32(i))
	}
}

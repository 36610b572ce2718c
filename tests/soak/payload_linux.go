// SPDX-License-Identifier: Apache-2.0

package main

import "encoding/binary"

// A payload is an id, one byte that says how long the payload is, and bytes that
// follow from the id.
const (
	minPayload = 9
	maxPayload = minPayload + 247
)

func fillPayload(b []byte, id uint64) {
	binary.NativeEndian.PutUint64(b, id)
	b[8] = byte(len(b) - minPayload)
	for i := minPayload; i < len(b); i++ {
		b[i] = byte(id + uint64(i))
	}
}

func wholePayload(b []byte) bool {
	if len(b) < minPayload || len(b) > maxPayload || int(b[8]) != len(b)-minPayload {
		return false
	}
	id := binary.NativeEndian.Uint64(b)
	for i := minPayload; i < len(b); i++ {
		if b[i] != byte(id+uint64(i)) {
			return false
		}
	}
	return true
}

// payloadSum is added up over all payloads that are sent, and again over all that
// are read: where nothing was dropped, the sums agree only if they were the same.
func payloadSum(b []byte) uint64 {
	id := binary.NativeEndian.Uint64(b) * 0x9e3779b97f4a7c15
	return (id ^ id>>32) * 0xd6e8feb86659fd93
}

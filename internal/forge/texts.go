// SPDX-License-Identifier: Apache-2.0

package forge

import (
	"encoding/binary"

	"github.com/sockmeta/sockmeta-go/cmsg"
)

// What a forger says. None of it is ever what a producer or an honest sender gives.
const (
	Service = 0x0F0FCA4A
	Mark    = 0x0F0FCA4B
	Trace   = "\x0f\x0f\xca\x4a-canary-bird"
)

// Rows returns the TLVs that a forger would like a receiver to believe in, of a size:
// under the keys of the producers, of senders, and an application's own.
func Rows(size int) []byte {
	service := binary.NativeEndian.AppendUint32(nil, Service)
	sender, _ := cmsg.AppendTLV(nil, cmsg.KeyServiceID, service)
	sender, _ = cmsg.AppendTLV(sender, cmsg.KeyTraceID, []byte(Trace))
	var rows []byte
	for _, row := range []struct {
		key   cmsg.Key
		value []byte
	}{
		{cmsg.KeyServiceID, service},
		{cmsg.KeyUser, service},
		{cmsg.KeyTraceID, []byte(Trace)},
		{cmsg.KeySender, sender},
		{cmsg.KeyPacketID, binary.NativeEndian.AppendUint64(nil, Service)},
	} {
		longer, err := cmsg.AppendTLV(rows, row.key, row.value)
		if err != nil || len(longer) > size {
			break
		}
		rows = longer
	}
	// One that is mostly padding fills what is left.
	for len(rows)+4 <= size {
		rows, _ = cmsg.AppendTLV(rows, cmsg.KeyUser+1, nil)
	}
	return rows
}

// A Text is bytes in the form of an area.
type Text struct {
	Name  string
	Bytes []byte
}

// Texts are areas of a size, with all anchors that a forger knows of or may guess.
func Texts(size int) []Text {
	var texts []Text
	add := func(name string, anchor []byte) {
		if size >= len(anchor) {
			texts = append(texts, Text{name, append(Rows(size-len(anchor)), anchor...)})
		}
	}
	add("no anchor", nil)
	for format := range byte(3) {
		add("public anchor", []byte{255, 2, 0x5B, format})
	}
	// Seals, whose secret the forger does not know, without and with a gap.
	for _, secret := range []uint64{0, 1, 1 << 32, 1<<64 - 1, 0x0F0F0F0F0F0F0F0F} {
		for _, gap := range []int{0, 4, 16} {
			seal := binary.NativeEndian.AppendUint64([]byte{255, byte(10 + gap), 0x5C, 0}, secret)
			add("guessed secret", append(seal, make([]byte, gap)...))
		}
	}
	return texts
}

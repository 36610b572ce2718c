// SPDX-License-Identifier: Apache-2.0

package cmsg

import (
	"encoding/binary"
	"fmt"
	"iter"
)

// Raw returns the area as the producer wrote it, anchor included, at most
// [AreaMax] bytes that alias m, and nil if there is none. It gives the bytes of
// malformed and truncated areas too.
func (m *Metadata) Raw() []byte {
	if m.rec.AreaLen == 0 {
		return nil
	}
	n := m.areaLen()
	return m.rec.Area[:n:n]
}

func (m *Metadata) areaLen() int { return min(int(m.rec.AreaLen), AreaMax) }

// area returns the area to be read as TLVs. It is not cut to AreaMax: a length
// above, which only a carrier can bring, is no multiple of 4 and so malformed.
func (m *Metadata) area() []byte { return m.rec.Area[:m.rec.AreaLen] }

// Err returns nil if the area can be trusted, or is not there, and otherwise
// says why not. The error is
//
//   - [ErrTruncated] if the end of the area is missing, [FlagTruncated];
//   - [ErrMalformed] if the format is [FormatTLV] and the area is not a row of
//     TLVs, see [CheckTLVs].
//
// It can be both. A malformed area gives no value at all, neither by key nor
// from [Metadata.All]: who knows what the bytes in front of the malformed place
// are. A truncated area gives the values that it has when it was cut between
// TLVs.
//
// Flags tell why there is no area: see [FlagDecapsulated], [FlagUnreadable].
func (m *Metadata) Err() error {
	var malformed error
	if m.Format() == FormatTLV {
		malformed = CheckTLVs(m.area())
	}
	if !m.Flags().Has(FlagTruncated) {
		return malformed
	}
	if malformed != nil {
		return fmt.Errorf("%w: %w", ErrTruncated, malformed)
	}
	return fmt.Errorf("%w: area ends after byte %d", ErrTruncated, m.areaLen())
}

// Bytes returns the value of k, and false if there is none: when no TLV has this
// key, when the format of the area is not [FormatTLV], and when the area is
// malformed, see [Metadata.Err]. The first occurrence of a key wins. The value
// aliases m, its capacity ends where it ends; it can be empty.
func (m *Metadata) Bytes(k Key) ([]byte, bool) {
	at, n := m.find(k)
	if at == 0 {
		return nil, false
	}
	return m.rec.Area[at : at+n : at+n], true
}

// find returns place and length of the value of k, at 0 if there is none.
func (m *Metadata) find(k Key) (at, n int) {
	if m.Format() != FormatTLV || k == KeyPad {
		return 0, 0
	}
	at, n, _ = findTLV(m.area(), k)
	return at, n
}

// Uint8 returns the value of k as a number. It returns false where
// [Metadata.Bytes] does, and if the value is not 1 byte long.
func (m *Metadata) Uint8(k Key) (uint8, bool) {
	at, n := m.find(k)
	if at == 0 || n != 1 {
		return 0, false
	}
	return m.rec.Area[at], true
}

// Uint16 returns the value of k as a number in host byte order. It returns false
// where [Metadata.Bytes] does, and if the value is not 2 bytes long.
func (m *Metadata) Uint16(k Key) (uint16, bool) {
	at, n := m.find(k)
	if at == 0 || n != 2 {
		return 0, false
	}
	return binary.NativeEndian.Uint16(m.rec.Area[at:]), true
}

// Uint32 returns the value of k as a number in host byte order. It returns false
// where [Metadata.Bytes] does, and if the value is not 4 bytes long.
func (m *Metadata) Uint32(k Key) (uint32, bool) {
	at, n := m.find(k)
	if at == 0 || n != 4 {
		return 0, false
	}
	return binary.NativeEndian.Uint32(m.rec.Area[at:]), true
}

// Uint64 returns the value of k as a number in host byte order. It returns false
// where [Metadata.Bytes] does, and if the value is not 8 bytes long.
func (m *Metadata) Uint64(k Key) (uint64, bool) {
	at, n := m.find(k)
	if at == 0 || n != 8 {
		return 0, false
	}
	return binary.NativeEndian.Uint64(m.rec.Area[at:]), true
}

// All returns keys and values of the area in its order, padding and anchor left
// out. A key that occurs again comes again: the first is the one that
// [Metadata.Bytes] returns. Areas of other formats than [FormatTLV] and
// malformed areas give nothing. The values alias m, which must not be changed
// meanwhile.
func (m *Metadata) All() iter.Seq2[Key, []byte] {
	return func(yield func(Key, []byte) bool) {
		area := m.area()
		if m.Format() != FormatTLV {
			return
		}
		if _, _, bad := findTLV(area, KeyAnchor); bad >= 0 {
			return
		}
		it := TLVs(area)
		for k, v, ok := it.Next(); ok; k, v, ok = it.Next() {
			if !yield(k, v) {
				return
			}
		}
	}
}

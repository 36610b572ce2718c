// SPDX-License-Identifier: Apache-2.0

package cmsg

import (
	"encoding/binary"
	"fmt"
)

// SetBytes sets the value of k. When the first occurrence of k has the same
// length, it is overwritten where it is; otherwise the new TLV goes in front.
// Either way no other occurrence stays. The first TLV of an empty area also gets
// the anchor, as with sockmeta_put() in bpf/include/sockmeta.h. v may alias m.
//
// On error m stays as it was. The error is
//
//   - [ErrKeyReserved] for [KeyPad] and [KeyAnchor];
//   - [ErrTooLarge] if v is longer than [ValueMax], or the area would be longer
//     than [AreaMax];
//   - [ErrFormat] if there is an area and its format is not [FormatTLV];
//   - [ErrMalformed] if there is an area and it is not a row of TLVs, or if it has
//     no anchor and would end in a value that reads as one.
func (m *Metadata) SetBytes(k Key, v []byte) error {
	if err := checkTLV(k, v); err != nil {
		return err
	}
	if m.rec.AreaLen == 0 {
		area := appendTLV(m.rec.Area[:0], k, v)
		area = AppendAnchor(area, FormatTLV)
		m.setArea(len(area), FormatTLV)
		m.rec.Flags &^= uint16(areaFlags)
		return nil
	}
	return m.edit(k, v, true)
}

// SetUint8 sets the value of k to a number of 1 byte. Errors are those of
// [Metadata.SetBytes].
func (m *Metadata) SetUint8(k Key, v uint8) error {
	return m.SetBytes(k, []byte{v})
}

// SetUint16 sets the value of k to a number of 2 bytes in host byte order.
// Errors are those of [Metadata.SetBytes].
func (m *Metadata) SetUint16(k Key, v uint16) error {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], v)
	return m.SetBytes(k, b[:])
}

// SetUint32 sets the value of k to a number of 4 bytes in host byte order.
// Errors are those of [Metadata.SetBytes].
func (m *Metadata) SetUint32(k Key, v uint32) error {
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], v)
	return m.SetBytes(k, b[:])
}

// SetUint64 sets the value of k to a number of 8 bytes in host byte order.
// Errors are those of [Metadata.SetBytes].
func (m *Metadata) SetUint64(k Key, v uint64) error {
	var b [8]byte
	binary.NativeEndian.PutUint64(b[:], v)
	return m.SetBytes(k, b[:])
}

// Delete removes all occurrences of k; that there is none is no error. The
// anchor stays. On error m stays as it was: errors are those of
// [Metadata.SetBytes].
func (m *Metadata) Delete(k Key) error {
	if k.reserved() {
		return ErrKeyReserved
	}
	if m.rec.AreaLen == 0 {
		return nil
	}
	return m.edit(k, nil, false)
}

// edit replaces all occurrences of k in an area that is not empty by v, or by
// nothing. It builds the new area apart, so that v may alias m and errors leave m
// alone.
func (m *Metadata) edit(k Key, v []byte, put bool) error {
	if m.Format() != FormatTLV {
		return ErrFormat
	}
	area := m.area()
	at, n, bad := findTLV(area, k)
	if bad >= 0 {
		return tlvError(bad)
	}

	var buf [len(m.rec.Area)]byte
	out := buf[:0]
	inPlace := put && at != 0 && n == len(v)
	if put && !inPlace {
		out = appendTLV(out, k, v)
	}
	for i := 0; i < len(area); {
		end := tlvEnd(area, i)
		switch {
		case Key(area[i]) != k:
			if len(out)+end-i > AreaMax {
				return ErrTooLarge
			}
			out = append(out, area[i:end]...)
		case inPlace && i+tlvHeaderLen == at:
			out = appendTLV(out, k, v)
		}
		i = end
	}
	if len(cutTLVAnchor(area)) == len(area) && len(cutTLVAnchor(out)) != len(out) {
		return fmt.Errorf("%w: value would read as an anchor", ErrMalformed)
	}
	m.rec.Area = buf
	m.setArea(len(out), FormatTLV)
	return nil
}

// SetRaw sets the area, anchor included, and its format. [FlagUnanchored] tells
// afterwards whether it ended in an anchor. SetRaw(nil, f) removes the area. b
// may alias m.
//
// On error m stays as it was. The error is
//
//   - [ErrTooLarge] if b is longer than [AreaMax];
//   - [ErrMalformed] if the length of b is not a multiple of 4, or f is
//     [FormatTLV] and b is not a row of TLVs;
//   - [ErrFormat] if b ends in an anchor that states another format.
func (m *Metadata) SetRaw(b []byte, f Format) error {
	if len(b) > AreaMax {
		return ErrTooLarge
	}
	if len(b)%tlvAlign != 0 {
		return ErrMalformed
	}
	stated, anchored := AnchorFormat(b)
	if anchored && stated != f {
		return ErrFormat
	}
	if f == FormatTLV {
		if err := CheckTLVs(b); err != nil {
			return err
		}
	}
	copy(m.rec.Area[:], b)
	m.setArea(len(b), f)
	m.rec.Flags &^= uint16(areaFlags)
	if len(b) > 0 && !anchored {
		m.rec.Flags |= uint16(FlagUnanchored)
	}
	return nil
}

func (m *Metadata) setArea(n int, f Format) {
	m.stamp()
	m.rec.AreaLen = uint8(n)
	m.rec.Format = uint8(f)
}

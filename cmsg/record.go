// SPDX-License-Identifier: Apache-2.0

package cmsg

import (
	"fmt"
	"unsafe"

	"github.com/sockmeta/sockmeta-go/internal/abi"
)

const (
	recordLen    = int(unsafe.Sizeof(abi.Record{}))
	recordHdrLen = abi.RecordHdrLen

	// hdrLenMin is the part that says where everything else is, up to and
	// including flags.
	hdrLenMin = int(unsafe.Offsetof(abi.Record{}.Tstamp))
)

const validKnown = abi.ValidTstamp | abi.ValidHWTstamp | abi.ValidMark | abi.ValidPriority |
	abi.ValidHash | abi.ValidVLAN | abi.ValidIfIndex | abi.ValidNAPIID | abi.ValidCPU | abi.ValidLaunch

// recordFields are where the fields end that a shorter fixed part does not have.
var recordFields = [...]struct {
	end   uintptr
	valid uint16
}{
	{unsafe.Offsetof(abi.Record{}.Tstamp) + 8, abi.ValidTstamp},
	{unsafe.Offsetof(abi.Record{}.HWTstamp) + 8, abi.ValidHWTstamp},
	{unsafe.Offsetof(abi.Record{}.Mark) + 4, abi.ValidMark},
	{unsafe.Offsetof(abi.Record{}.Priority) + 4, abi.ValidPriority},
	{unsafe.Offsetof(abi.Record{}.Hash) + 4, abi.ValidHash},
	{unsafe.Offsetof(abi.Record{}.IfIndex) + 4, abi.ValidIfIndex},
	{unsafe.Offsetof(abi.Record{}.NAPIID) + 4, abi.ValidNAPIID},
	{unsafe.Offsetof(abi.Record{}.CPU) + 4, abi.ValidCPU},
	{unsafe.Offsetof(abi.Record{}.VLANProto) + 2, abi.ValidVLAN},
	{unsafe.Offsetof(abi.Record{}.Launch) + 8, abi.ValidLaunch},
}

func (m *Metadata) bytes() *[recordLen]byte {
	return (*[recordLen]byte)(unsafe.Pointer(&m.rec))
}

func (m *Metadata) stamp() {
	m.rec.Version = abi.RecordVersion
	m.rec.HdrLen = uint8(recordHdrLen)
}

// Decode reads a record, struct sockmeta_record in bpf/include/sockmeta_abi.h,
// into m. It copies: b is the caller's again afterwards.
//
// The record may be of an older or a newer version, with a fixed part that is
// shorter or longer: fields that are not in it are not known afterwards, fields
// that only it knows are skipped. When b ends within the area, m has what is
// there of it, in whole words of 4 bytes, and [FlagTruncated]. What follows the
// area is ignored. What the area holds is not looked at: see [Metadata.Err].
//
// On error m is empty. The error is
//
//   - [ErrTruncated] if b ends within the fixed part;
//   - [ErrVersion] if the version is 0;
//   - [ErrMalformed] if the length of the fixed part is below 8 or not a multiple
//     of 4, or that of the area is above [AreaMax].
func (m *Metadata) Decode(b []byte) error {
	m.Reset()
	if len(b) < hdrLenMin {
		return fmt.Errorf("%w: record of %d bytes", ErrTruncated, len(b))
	}
	version, hdrLen, areaLen := b[0], int(b[1]), int(b[2])
	switch {
	case version == 0:
		return fmt.Errorf("%w: %d", ErrVersion, version)
	case hdrLen < hdrLenMin || hdrLen%4 != 0:
		return fmt.Errorf("%w: record with a fixed part of %d bytes", ErrMalformed, hdrLen)
	case areaLen > AreaMax:
		return fmt.Errorf("%w: record with an area of %d bytes", ErrMalformed, areaLen)
	case len(b) < hdrLen:
		return fmt.Errorf("%w: record of %d bytes with a fixed part of %d", ErrTruncated, len(b), hdrLen)
	}

	copy(m.bytes()[:min(hdrLen, recordHdrLen)], b)
	m.stamp()
	m.rec.Reserved = 0
	m.rec.Valid &= validKnown
	if hdrLen < recordHdrLen {
		for _, f := range recordFields {
			if uintptr(hdrLen) < f.end {
				m.rec.Valid &^= f.valid
			}
		}
	}

	area := b[hdrLen:]
	if len(area) < areaLen {
		areaLen = len(area) &^ (tlvAlign - 1)
		m.rec.Flags |= uint16(FlagTruncated)
	}
	m.rec.AreaLen = uint8(areaLen)
	copy(m.rec.Area[:], area[:areaLen])
	return nil
}

// UnmarshalBinary is [Metadata.Decode], for [encoding.BinaryUnmarshaler].
func (m *Metadata) UnmarshalBinary(b []byte) error { return m.Decode(b) }

// AppendBinary appends the record to dst, the fixed part of 64 bytes and the
// bytes of the area that are in use, 316 at most, and returns the extended slice.
// It allocates only when dst's capacity is too small. Host byte order: the record
// is for the machine it was made on. The error is always nil; it is there for
// [encoding.BinaryAppender].
func (m *Metadata) AppendBinary(dst []byte) ([]byte, error) {
	return m.appendRecord(dst), nil
}

func (m *Metadata) appendRecord(dst []byte) []byte {
	n := m.areaLen()
	at := len(dst)
	dst = append(dst, m.bytes()[:recordHdrLen+n]...)
	dst[at], dst[at+1], dst[at+2] = abi.RecordVersion, byte(recordHdrLen), byte(n)
	return dst
}

// MarshalBinary returns the record as [Metadata.AppendBinary] writes it, in a new
// slice. The error is always nil; it is there for [encoding.BinaryMarshaler].
func (m Metadata) MarshalBinary() ([]byte, error) {
	return m.appendRecord(nil), nil
}

// SPDX-License-Identifier: Apache-2.0

package cmsg

import "github.com/sockmeta/sockmeta-go/internal/abi"

// SOL_BPF is the level of sockmeta's control messages and socket options, named
// as kernel headers name levels. No protocol has it.
const SOL_BPF = abi.SOL_BPF

// SCM_RECORD is the type of the control message at level [SOL_BPF] that holds a
// record, as [Metadata.AppendBinary] writes and [Metadata.Decode] reads it.
const SCM_RECORD = 1

// FindMetadata reads the record in the control messages oob into m. It returns
// false if there is none. When there is more than one, the first counts.
//
// The error is that of [Metadata.Decode], or [ErrMalformed] if a control message
// in front of the record is malformed. Whenever it returns false or an error, m
// is empty: a Metadata that is used for one packet after another never shows what
// belongs to an earlier one.
func FindMetadata(oob []byte, m *Metadata) (bool, error) {
	it := Iterator{oob: oob}
	for msg, ok := it.Next(); ok; msg, ok = it.Next() {
		if msg.Level == SOL_BPF && msg.Type == SCM_RECORD {
			if err := m.Decode(msg.Data); err != nil {
				return false, err
			}
			return true, nil
		}
	}
	m.Reset()
	return false, it.Err()
}

// AppendCmsg appends a control message with the record to dst, and returns the
// extended slice. It takes [MetadataSpace] bytes at most, and allocates only when
// dst's capacity is too small. The length of dst must be a multiple of the
// pointer size, as for [Append].
func (m *Metadata) AppendCmsg(dst []byte) []byte {
	n := recordHdrLen + m.areaLen()
	dst = appendHeader(dst, SOL_BPF, SCM_RECORD, n)
	dst = m.appendRecord(dst)
	return appendPadding(dst, n)
}

// MetadataSpace is how many bytes a control message with a record takes at most,
// padding included: what to add to a buffer for control messages.
const MetadataSpace = headerLen + (recordHdrLen+AreaMax+align-1)&^(align-1)

// Record returns m's own storage, for this module's other packages: the layout is that
// of struct sockmeta_record. m is aligned as uint64 is, to 8 bytes on 64-bit systems,
// but to 4 on 386, arm and mips.
//
// Who writes to it vouches for version and hdr_len being those of this package's
// record, 1 and 64; use [Metadata.Decode] for others. Bits in valid that are not
// known are ignored. An area_len above [AreaMax] makes TLVs malformed, and Raw ends
// at AreaMax.
func (m *Metadata) Record() *abi.Record { return &m.rec }

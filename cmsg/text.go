// SPDX-License-Identifier: Apache-2.0

package cmsg

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"log/slog"
	"strconv"
	"time"

	"github.com/sockmeta/sockmeta-go/internal/abi"
)

type fieldKind uint8

const (
	fieldDecimal fieldKind = iota
	fieldHex               // a number that people read in hexadecimal
	fieldTime
	fieldBytes
	fieldText // ASCII, nothing in it needs escaping
)

// A field is one thing to show about a Metadata, in whatever syntax.
type field struct {
	name  string
	kind  fieldKind
	num   uint64
	time  time.Time
	bytes []byte
	text  string
}

// fields returns what there is to show, in a fixed order, each name once.
func (m *Metadata) fields() []field {
	fs := make([]field, 0, 16)
	if t, ok := m.Timestamp(); ok {
		fs = append(fs, field{name: "time", kind: fieldTime, time: t.UTC()})
	}
	if t, ok := m.HWTimestamp(); ok {
		fs = append(fs, field{name: "hwtime", kind: fieldTime, time: t.UTC()})
	}
	number := func(name string, kind fieldKind, v uint64, ok bool) {
		if ok {
			fs = append(fs, field{name: name, kind: kind, num: v})
		}
	}
	proto, _ := m.VLANProtocol()
	number("launch", fieldDecimal, m.rec.Launch, m.has(abi.ValidLaunch))
	number("mark", fieldHex, uint64(m.rec.Mark), m.has(abi.ValidMark))
	number("prio", fieldDecimal, uint64(m.rec.Priority), m.has(abi.ValidPriority))
	number("hash", fieldHex, uint64(m.rec.Hash), m.has(abi.ValidHash))
	number("vlan", fieldHex, uint64(m.rec.VLANTCI), m.has(abi.ValidVLAN))
	number("vlan_proto", fieldHex, uint64(proto), m.has(abi.ValidVLAN))
	number("ifindex", fieldDecimal, uint64(m.rec.IfIndex), m.has(abi.ValidIfIndex))
	number("napi_id", fieldDecimal, uint64(m.rec.NAPIID), m.has(abi.ValidNAPIID))
	number("cpu", fieldDecimal, uint64(m.rec.CPU), m.has(abi.ValidCPU))
	if f := m.Flags(); f != 0 {
		fs = append(fs, field{name: "flags", kind: fieldText, text: f.String()})
	}
	return m.appendAreaFields(fs)
}

func (m *Metadata) appendAreaFields(fs []field) []field {
	area := m.Raw()
	if m.Format() != FormatTLV && area != nil {
		return append(fs,
			field{name: "format", kind: fieldText, text: m.Format().String()},
			field{name: "area", kind: fieldBytes, bytes: area})
	}
	if err := m.Err(); err != nil {
		fs = append(fs, field{name: "error", kind: fieldText, text: err.Error()})
		if errors.Is(err, ErrMalformed) {
			return append(fs, field{name: "area", kind: fieldBytes, bytes: area})
		}
	}
	var seen [256]bool
	for k, v := range m.All() {
		if seen[k] {
			continue
		}
		seen[k] = true
		f := field{name: k.String(), kind: fieldBytes, bytes: v}
		if len(v) == k.numberLen() {
			switch len(v) {
			case 4:
				f.kind, f.num = fieldDecimal, uint64(binary.NativeEndian.Uint32(v))
			case 8:
				f.kind, f.num = fieldDecimal, binary.NativeEndian.Uint64(v)
			}
		}
		fs = append(fs, f)
	}
	return fs
}

// String returns what is known in one line, name=value with spaces between:
// times in UTC as RFC 3339 has them, fields of the record, flags, and the TLVs by
// the name or number of their key, the first of each. Values are in hexadecimal
// unless the key stands for a number. An area that cannot be read as TLVs comes
// as a whole. The text is for people and may change.
func (m Metadata) String() string {
	b := make([]byte, 0, 128)
	for _, f := range m.fields() {
		if len(b) > 0 {
			b = append(b, ' ')
		}
		b = append(b, f.name...)
		b = append(b, '=')
		switch f.kind {
		case fieldDecimal:
			b = strconv.AppendUint(b, f.num, 10)
		case fieldHex:
			b = strconv.AppendUint(append(b, "0x"...), f.num, 16)
		case fieldTime:
			b = f.time.AppendFormat(b, time.RFC3339Nano)
		case fieldBytes:
			b = hex.AppendEncode(append(b, "0x"...), f.bytes)
		case fieldText:
			if f.name == "error" {
				b = strconv.AppendQuote(b, f.text)
			} else {
				b = append(b, f.text...)
			}
		}
	}
	if len(b) == 0 {
		return "(empty)"
	}
	return string(b)
}

// MarshalJSON returns an object with the names that [Metadata.String] has; these
// do not change. Fields of the record, and TLVs whose key stands for a number,
// are numbers, up to 64 bits wide; times are strings as RFC 3339 has them, in UTC
// with nanoseconds; other values are strings in hexadecimal that start with 0x;
// flags, format and error are strings. What is not known is left out. The error
// is always nil.
func (m Metadata) MarshalJSON() ([]byte, error) {
	b := append(make([]byte, 0, 256), '{')
	for _, f := range m.fields() {
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = strconv.AppendQuote(b, f.name)
		b = append(b, ':')
		switch f.kind {
		case fieldDecimal, fieldHex:
			b = strconv.AppendUint(b, f.num, 10)
			continue
		}
		b = append(b, '"')
		switch f.kind {
		case fieldTime:
			b = f.time.AppendFormat(b, time.RFC3339Nano)
		case fieldBytes:
			b = hex.AppendEncode(append(b, "0x"...), f.bytes)
		case fieldText:
			b = append(b, f.text...)
		}
		b = append(b, '"')
	}
	return append(b, '}'), nil
}

// LogValue returns a group with the names and values of [Metadata.MarshalJSON],
// for [log/slog].
func (m Metadata) LogValue() slog.Value {
	fs := m.fields()
	attrs := make([]slog.Attr, 0, len(fs))
	for _, f := range fs {
		switch f.kind {
		case fieldDecimal, fieldHex:
			attrs = append(attrs, slog.Uint64(f.name, f.num))
		case fieldTime:
			attrs = append(attrs, slog.Time(f.name, f.time))
		case fieldBytes:
			attrs = append(attrs, slog.String(f.name, "0x"+hex.EncodeToString(f.bytes)))
		case fieldText:
			attrs = append(attrs, slog.String(f.name, f.text))
		}
	}
	return slog.GroupValue(attrs...)
}

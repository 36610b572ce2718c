// SPDX-License-Identifier: Apache-2.0

package cmsg

import (
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/sockmeta/sockmeta-go/internal/abi"
)

// fullRecord has another value in each field.
func fullRecord() Metadata {
	var m Metadata
	m.stamp()
	m.rec.Valid = validKnown
	m.rec.Flags = abi.FlagAggregate
	m.rec.Tstamp = 1_700_000_000_123456789
	m.rec.HWTstamp = 1_600_000_000_000000001
	m.rec.Mark = 0xF0000001
	m.rec.Priority = 6
	m.rec.Hash = 0xDEADBEEF
	m.rec.IfIndex = 3
	m.rec.NAPIID = 8193
	m.rec.CPU = 5
	m.rec.VLANTCI = 0x6064
	m.rec.VLANProto = binary.NativeEndian.Uint16([]byte{0x88, 0xA8})
	m.rec.Launch = 86_400_000_000_007
	m.rec.AreaLen = uint8(copy(m.rec.Area[:], "\x10\x03abc\x00\x00\x00\x11\x01z\x00"+anchor))
	return m
}

// The getters by the bit that makes them valid, as something to compare.
var getters = []struct {
	name  string
	valid uint16
	want  any
	get   func(*Metadata) (any, bool)
}{
	{"Timestamp", abi.ValidTstamp, int64(1_700_000_000_123456789), func(m *Metadata) (any, bool) { v, ok := m.Timestamp(); return nanos(v), ok }},
	{"HWTimestamp", abi.ValidHWTstamp, int64(1_600_000_000_000000001), func(m *Metadata) (any, bool) { v, ok := m.HWTimestamp(); return nanos(v), ok }},
	{"Mark", abi.ValidMark, uint32(0xF0000001), func(m *Metadata) (any, bool) { v, ok := m.Mark(); return v, ok }},
	{"Priority", abi.ValidPriority, uint32(6), func(m *Metadata) (any, bool) { v, ok := m.Priority(); return v, ok }},
	{"Hash", abi.ValidHash, uint32(0xDEADBEEF), func(m *Metadata) (any, bool) { v, ok := m.Hash(); return v, ok }},
	{"VLAN", abi.ValidVLAN, uint16(0x6064), func(m *Metadata) (any, bool) { v, ok := m.VLAN(); return v, ok }},
	{"VLANProtocol", abi.ValidVLAN, uint16(0x88A8), func(m *Metadata) (any, bool) { v, ok := m.VLANProtocol(); return v, ok }},
	{"IfIndex", abi.ValidIfIndex, 3, func(m *Metadata) (any, bool) { v, ok := m.IfIndex(); return v, ok }},
	{"NAPIID", abi.ValidNAPIID, uint32(8193), func(m *Metadata) (any, bool) { v, ok := m.NAPIID(); return v, ok }},
	{"CPU", abi.ValidCPU, uint32(5), func(m *Metadata) (any, bool) { v, ok := m.CPU(); return v, ok }},
	{"LaunchTime", abi.ValidLaunch, uint64(86_400_000_000_007), func(m *Metadata) (any, bool) { v, ok := m.LaunchTime(); return v, ok }},
}

func nanos(t time.Time) any {
	if t.IsZero() {
		return int64(0)
	}
	return t.UnixNano()
}

func isZero(v any) bool {
	switch v := v.(type) {
	case int64:
		return v == 0
	case uint64:
		return v == 0
	case uint32:
		return v == 0
	case uint16:
		return v == 0
	case int:
		return v == 0
	}
	return false
}

func TestGetters(t *testing.T) {
	for _, g := range getters {
		m := fullRecord()
		if v, ok := g.get(&m); !ok || v != g.want {
			t.Errorf("%s: got %v, %v, want %v", g.name, v, ok, g.want)
		}
		m.rec.Valid &^= g.valid
		if v, ok := g.get(&m); ok || !isZero(v) {
			t.Errorf("%s: got %v, %v when it is not valid", g.name, v, ok)
		}
		m.rec.Valid = g.valid
		for _, other := range getters {
			if _, ok := other.get(&m); ok != (other.valid == g.valid) {
				t.Errorf("%s: %v when only %s is valid", other.name, ok, g.name)
			}
		}
	}
}

func TestTimestampRange(t *testing.T) {
	var m Metadata
	m.rec.Valid = abi.ValidHWTstamp
	m.rec.HWTstamp = 1<<64 - 1
	got, _ := m.HWTimestamp()
	if want := time.Date(2554, 7, 21, 23, 34, 33, 709551615, time.UTC); !got.Equal(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestZeroMetadata(t *testing.T) {
	var m Metadata
	for _, g := range getters {
		if v, ok := g.get(&m); ok || !isZero(v) {
			t.Errorf("%s: %v, %v", g.name, v, ok)
		}
	}
	for k := range 256 {
		if v, ok := m.Bytes(Key(k)); ok || v != nil {
			t.Errorf("key %d: %q, %v", k, v, ok)
		}
	}
	for k, v := range m.All() {
		t.Errorf("All gives %v %q", k, v)
	}
	if m.Raw() != nil || m.Err() != nil || m.Flags() != 0 || m.Format() != FormatTLV {
		t.Errorf("raw % x, err %v, flags %v, format %v", m.Raw(), m.Err(), m.Flags(), m.Format())
	}
}

func TestSetFields(t *testing.T) {
	var m Metadata
	m.SetMark(0)
	if v, ok := m.Mark(); !ok || v != 0 {
		t.Errorf("mark %d, %v", v, ok)
	}
	if _, ok := m.Priority(); ok {
		t.Error("SetMark set the priority")
	}
	m.SetMark(7)
	m.SetPriority(8)
	mark, _ := m.Mark()
	prio, ok := m.Priority()
	if mark != 7 || prio != 8 || !ok {
		t.Errorf("mark %d, priority %d %v", mark, prio, ok)
	}
	if m.rec.Version != 1 || m.rec.HdrLen != 64 {
		t.Errorf("version %d, hdr_len %d", m.rec.Version, m.rec.HdrLen)
	}
	m.Reset()
	if m != (Metadata{}) {
		t.Error("Reset leaves something")
	}
}

func TestCopyIsIndependent(t *testing.T) {
	a := fullRecord()
	b := a
	if err := a.SetBytes(16, []byte("xyz")); err != nil {
		t.Fatal(err)
	}
	if v, _ := b.Bytes(16); string(v) != "abc" {
		t.Errorf("copy has %q", v)
	}
}

func TestValues(t *testing.T) {
	var m Metadata
	for _, err := range []error{
		m.SetUint8(20, 0xA1), m.SetUint16(21, 0xB1B2), m.SetUint32(22, 0xC1C2C3C4),
		m.SetUint64(23, 0xD1D2D3D4D5D6D7D8), m.SetBytes(24, []byte("abc")), m.SetBytes(25, nil),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for k := Key(19); k <= 26; k++ {
		v8, ok8 := m.Uint8(k)
		v16, ok16 := m.Uint16(k)
		v32, ok32 := m.Uint32(k)
		v64, ok64 := m.Uint64(k)
		ok := [4]bool{ok8, ok16, ok32, ok64}
		want := [4]bool{k == 20, k == 21, k == 22, k == 23}
		if ok != want {
			t.Errorf("key %d: lengths %v, want %v", k, ok, want)
		}
		if ok8 != (v8 == 0xA1) || ok16 != (v16 == 0xB1B2) || ok32 != (v32 == 0xC1C2C3C4) || ok64 != (v64 == 0xD1D2D3D4D5D6D7D8) {
			t.Errorf("key %d: %#x %#x %#x %#x", k, v8, v16, v32, v64)
		}
	}
	if v, ok := m.Bytes(25); !ok || v == nil || len(v) != 0 {
		t.Errorf("empty value: %v, %v", v, ok)
	}
	if v, _ := m.Bytes(22); binary.NativeEndian.Uint32(v) != 0xC1C2C3C4 {
		t.Errorf("not in host byte order: % x", v)
	}
}

func TestFirstWins(t *testing.T) {
	var m Metadata
	if err := m.SetRaw([]byte("\x10\x02ab\x11\x02cd\x10\x02ef"+anchor), FormatTLV); err != nil {
		t.Fatal(err)
	}
	if v, _ := m.Bytes(16); string(v) != "ab" {
		t.Errorf("got %q", v)
	}
	var all []kv
	for k, v := range m.All() {
		all = append(all, kv{k, string(v)})
	}
	if want := []kv{{16, "ab"}, {17, "cd"}, {16, "ef"}}; !equalKVs(all, want) {
		t.Errorf("All gives %v, want %v", all, want)
	}
	for range m.All() {
		break
	}
}

// TestMalformedAreaGivesNothing loads areas as a carrier does, unchecked.
func TestMalformedAreaGivesNothing(t *testing.T) {
	for _, tt := range tlvTests {
		var m Metadata
		m.stamp()
		m.rec.Launch = 86_400_000_000_007
		m.rec.AreaLen = uint8(copy(m.rec.Area[:], tt.area))
		if err := m.Err(); errors.Is(err, ErrMalformed) != tt.bad || errors.Is(err, ErrTruncated) {
			t.Errorf("%s: error %v", tt.name, err)
		}
		if string(m.Raw()) != tt.area {
			t.Errorf("%s: raw %q", tt.name, m.Raw())
		}
		want := tt.want
		if tt.bad {
			want = nil
		}
		var all []kv
		for k, v := range m.All() {
			all = append(all, kv{k, string(v)})
		}
		if !equalKVs(all, want) {
			t.Errorf("%s: All gives %v, want %v", tt.name, all, want)
		}
		if _, ok := m.Bytes(16); ok != (len(want) > 0) {
			t.Errorf("%s: Bytes %v", tt.name, ok)
		}
	}
}

func TestOtherFormats(t *testing.T) {
	for _, f := range []Format{FormatStruct, FormatRaw, 9} {
		var m Metadata
		raw := AppendAnchor([]byte("\x10\x02ab"), f)
		if err := m.SetRaw(raw, f); err != nil {
			t.Fatal(err)
		}
		if m.Format() != f || string(m.Raw()) != string(raw) || m.Err() != nil {
			t.Errorf("%v: format %v, raw %q, err %v", f, m.Format(), m.Raw(), m.Err())
		}
		if v, ok := m.Bytes(16); ok {
			t.Errorf("%v: Bytes %q", f, v)
		}
		for k := range m.All() {
			t.Errorf("%v: All gives %v", f, k)
		}
		before := m
		if err := m.SetUint8(16, 1); !errors.Is(err, ErrFormat) {
			t.Errorf("%v: set: %v", f, err)
		}
		if err := m.Delete(16); !errors.Is(err, ErrFormat) {
			t.Errorf("%v: delete: %v", f, err)
		}
		if m != before {
			t.Errorf("%v: changed by an error", f)
		}
	}
}

func TestTruncatedArea(t *testing.T) {
	m := fullRecord()
	m.rec.Flags |= abi.FlagTruncated
	m.rec.AreaLen = 8
	if err := m.Err(); !errors.Is(err, ErrTruncated) || errors.Is(err, ErrMalformed) {
		t.Errorf("cut between TLVs: %v", err)
	}
	if v, ok := m.Bytes(16); !ok || string(v) != "abc" {
		t.Errorf("cut between TLVs: %q, %v", v, ok)
	}
	m.rec.AreaLen = 4
	if err := m.Err(); !errors.Is(err, ErrTruncated) || !errors.Is(err, ErrMalformed) {
		t.Errorf("cut in a TLV: %v", err)
	}
	if v, ok := m.Bytes(16); ok {
		t.Errorf("cut in a TLV: %q", v)
	}
}

// TestCarrierGarbage puts what no record can have into the storage.
func TestCarrierGarbage(t *testing.T) {
	var m Metadata
	for i := range m.bytes() {
		m.bytes()[i] = 0xff
	}
	if n := len(m.Raw()); n != AreaMax {
		t.Errorf("raw has %d bytes", n)
	}
	_ = m.String()
	b, err := m.AppendBinary(nil)
	if err != nil || len(b) != 64+AreaMax {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	var d Metadata
	if err := d.Decode(b); err != nil || d.rec.Valid != validKnown || string(d.Raw()) != string(m.Raw()) {
		t.Errorf("decode: %v, valid %#x", err, d.rec.Valid)
	}
	m.rec.Format = abi.FormatTLV
	if err := m.Err(); !errors.Is(err, ErrMalformed) {
		t.Errorf("err %v", err)
	}
}

func TestRecord(t *testing.T) {
	m := fullRecord()
	var c Metadata
	*c.Record() = *m.Record()
	if c != m {
		t.Error("copy of the record is another")
	}
}

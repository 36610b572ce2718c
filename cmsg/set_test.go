// SPDX-License-Identifier: Apache-2.0

package cmsg

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/sockmeta/sockmeta-go/internal/abi"
)

func withArea(t *testing.T, area string) Metadata {
	t.Helper()
	var m Metadata
	if err := m.SetRaw([]byte(area), FormatTLV); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestSetBytes(t *testing.T) {
	tests := []struct {
		name, area string
		k          Key
		v          string
		want       string
	}{
		{"first", "", 16, "ab", "\x10\x02ab" + anchor},
		{"only the anchor", anchor, 16, "ab", "\x10\x02ab" + anchor},
		{"in front", "\x10\x02ab" + anchor, 17, "c", "\x11\x01c\x00\x10\x02ab" + anchor},
		{"in front, no anchor", "\x10\x02ab", 17, "c", "\x11\x01c\x00\x10\x02ab"},
		{"in place", "\x11\x01c\x00\x10\x03abc\x00\x00\x00" + anchor, 16, "xyz", "\x11\x01c\x00\x10\x03xyz\x00\x00\x00" + anchor},
		{"in place, once", "\x11\x01c\x00\x10\x02ab\x12\x00\x00\x00\x10\x02cd\x10\x00\x00\x00" + anchor, 16, "xy", "\x11\x01c\x00\x10\x02xy\x12\x00\x00\x00" + anchor},
		{"other length", "\x11\x01c\x00\x10\x02ab" + anchor, 16, "xyz", "\x10\x03xyz\x00\x00\x00\x11\x01c\x00" + anchor},
		{"length of the second", "\x10\x02ab\x10\x01c\x00" + anchor, 16, "x", "\x10\x01x\x00" + anchor},
		{"padding stays", "\x00\x00\x00\x00\x10\x02ab" + anchor, 16, "xy", "\x00\x00\x00\x00\x10\x02xy" + anchor},
		{"empty value", "\x10\x02ab" + anchor, 16, "", "\x10\x00\x00\x00" + anchor},
	}
	for _, tt := range tests {
		m := withArea(t, tt.area)
		if err := m.SetBytes(tt.k, []byte(tt.v)); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if string(m.Raw()) != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, m.Raw(), tt.want)
		}
		if m.rec.Version != 1 || m.rec.HdrLen != 64 {
			t.Errorf("%s: version %d, hdr_len %d", tt.name, m.rec.Version, m.rec.HdrLen)
		}
	}
}

func TestSetBytesAliasing(t *testing.T) {
	m := withArea(t, "\x10\x02ab\x11\x04wxyz\x00\x00\x10\x04cdef\x00\x00"+anchor)
	v, _ := m.Bytes(17)
	if err := m.SetBytes(16, v); err != nil {
		t.Fatal(err)
	}
	if got, _ := m.Bytes(16); string(got) != "wxyz" {
		t.Errorf("got %q", got)
	}
	if err := m.SetRaw(m.Raw()[8:], FormatTLV); err != nil {
		t.Fatal(err)
	}
	if want := "\x11\x04wxyz\x00\x00" + anchor; string(m.Raw()) != want {
		t.Errorf("got %q, want %q", m.Raw(), want)
	}
}

func TestSetErrors(t *testing.T) {
	long := string(bytes.Repeat([]byte{'v'}, 240))
	full := "\x20\xf0" + long + "\x00\x00" + "\x10\x02ab" + anchor
	if len(full) != AreaMax {
		t.Fatalf("%d bytes", len(full))
	}
	tests := []struct {
		name, area string
		k          Key
		n          int
		want       error
	}{
		{"pad", "", KeyPad, 1, ErrKeyReserved},
		{"anchor", "", KeyAnchor, 2, ErrKeyReserved},
		{"value", "", 16, ValueMax + 1, ErrTooLarge},
		{"area is full", full, 17, 0, ErrTooLarge},
		{"grows in a full area", full, 16, 3, ErrTooLarge},
		{"grows by padding", full, 16, 1, nil},
		{"in place in a full area", full, 16, 2, nil},
		{"largest", "", 16, ValueMax, nil},
		{"largest instead of another", "\x10\x02ab" + anchor, 16, ValueMax, nil},
		{"largest beside another", "\x10\x02ab" + anchor, 17, ValueMax, ErrTooLarge},
		{"largest beside another", "\x10\x02ab", 17, ValueMax, nil},
		{"largest without anchor", "\x10\x02ab\x11\x02ab", 18, ValueMax, ErrTooLarge},
	}
	for _, tt := range tests {
		m := withArea(t, tt.area)
		before := m
		v := bytes.Repeat([]byte{'n'}, tt.n)
		if err := m.SetBytes(tt.k, v); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
		if tt.want != nil {
			if m != before {
				t.Errorf("%s: changed by an error", tt.name)
			}
			continue
		}
		if got, _ := m.Bytes(tt.k); !bytes.Equal(got, v) {
			t.Errorf("%s: got %q", tt.name, got)
		}
		if m.Err() != nil || len(m.Raw()) > AreaMax {
			t.Errorf("%s: %d bytes, %v", tt.name, len(m.Raw()), m.Err())
		}
	}

	var m Metadata
	m.rec.AreaLen = uint8(copy(m.rec.Area[:], "\x10\x09ab"))
	before := m
	if err := m.SetUint8(17, 1); !errors.Is(err, ErrMalformed) || m != before {
		t.Errorf("malformed: %v", err)
	}
	if err := m.Delete(17); !errors.Is(err, ErrMalformed) || m != before {
		t.Errorf("malformed: delete: %v", err)
	}
}

// TestNoAnchorByAccident has the end of an area without anchor become a value
// that reads as one.
func TestNoAnchorByAccident(t *testing.T) {
	trap := "ab" + anchor
	m := withArea(t, "\x10\x06abcdef")
	before := m
	if err := m.SetBytes(16, []byte(trap)); !errors.Is(err, ErrMalformed) || m != before {
		t.Errorf("in place: %v, %q", err, m.Raw())
	}
	if err := m.SetBytes(17, []byte(trap)); err != nil {
		t.Errorf("in front: %v", err)
	}
	before = m
	if err := m.Delete(16); !errors.Is(err, ErrMalformed) || m != before {
		t.Errorf("delete: %v, %q", err, m.Raw())
	}

	m.Reset()
	if err := m.SetBytes(16, []byte(trap)); err != nil {
		t.Errorf("empty area: %v", err)
	}
	if v, _ := m.Bytes(16); string(v) != trap || m.Err() != nil {
		t.Errorf("got %q, %v", v, m.Err())
	}
}

func TestDelete(t *testing.T) {
	m := withArea(t, "\x10\x02ab\x11\x01c\x00\x10\x00\x00\x00"+anchor)
	for _, k := range []Key{KeyPad, KeyAnchor} {
		if err := m.Delete(k); !errors.Is(err, ErrKeyReserved) {
			t.Errorf("%v: %v", k, err)
		}
	}
	for _, step := range []struct {
		k    Key
		want string
	}{
		{99, "\x10\x02ab\x11\x01c\x00\x10\x00\x00\x00" + anchor},
		{16, "\x11\x01c\x00" + anchor},
		{17, anchor},
		{17, anchor},
	} {
		if err := m.Delete(step.k); err != nil || string(m.Raw()) != step.want {
			t.Errorf("%v: %v, %q, want %q", step.k, err, m.Raw(), step.want)
		}
	}
	var empty Metadata
	if err := empty.Delete(16); err != nil || empty != (Metadata{}) {
		t.Errorf("empty: %v", err)
	}
}

func TestSetRaw(t *testing.T) {
	tests := []struct {
		name string
		b    string
		f    Format
		want error
	}{
		{"none", "", FormatTLV, nil},
		{"TLVs", "\x10\x02ab" + anchor, FormatTLV, nil},
		{"struct", "abcd\xff\x02\x5b\x01", FormatStruct, nil},
		{"raw without anchor", "abcd", FormatRaw, nil},
		{"largest", string(make([]byte, AreaMax)), FormatRaw, nil},
		{"too large", string(make([]byte, AreaMax+4)), FormatRaw, ErrTooLarge},
		{"not in words", "abc", FormatRaw, ErrMalformed},
		{"malformed", "\x10\x03ab", FormatTLV, ErrMalformed},
		{"anchor of other format", "\x10\x02ab" + anchor, FormatStruct, ErrFormat},
	}
	for _, tt := range tests {
		m := withArea(t, "\x10\x02zz"+anchor)
		m.rec.Flags = abi.FlagTruncated | abi.FlagRepeated | abi.FlagUnanchored
		before := m
		err := m.SetRaw([]byte(tt.b), tt.f)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
		if tt.want != nil {
			if m != before {
				t.Errorf("%s: changed by an error", tt.name)
			}
			continue
		}
		if string(m.Raw()) != tt.b || m.Format() != tt.f {
			t.Errorf("%s: got %q, %v", tt.name, m.Raw(), m.Format())
		}
		_, anchored := AnchorFormat([]byte(tt.b))
		want := FlagRepeated
		if !anchored && tt.b != "" {
			want |= FlagUnanchored
		}
		if m.Flags() != want {
			t.Errorf("%s: flags %v, want %v", tt.name, m.Flags(), want)
		}
	}
}

func TestSetClearsFlagsOfTheArea(t *testing.T) {
	var m Metadata
	m.rec.Flags = abi.FlagDecapsulated | abi.FlagSynAck
	m.rec.Format = abi.FormatRaw
	if err := m.SetUint8(16, 1); err != nil {
		t.Fatal(err)
	}
	if m.Flags() != FlagSynAck || m.Format() != FormatTLV {
		t.Errorf("flags %v, format %v", m.Flags(), m.Format())
	}
}

// setModel is what the setters should do, to a list instead of bytes.
type setModel struct {
	tlvs     []kv
	anchored bool
}

func (s *setModel) size() int {
	n := 0
	for _, e := range s.tlvs {
		n += (len(e.v) + 5) / 4 * 4
	}
	if s.anchored {
		n += 4
	}
	return n
}

func (s *setModel) set(k Key, v string) error {
	if k == 0 || k == 255 {
		return ErrKeyReserved
	}
	next := setModel{anchored: s.anchored || s.size() == 0}
	i := slices.IndexFunc(s.tlvs, func(e kv) bool { return e.k == k })
	inPlace := i >= 0 && len(s.tlvs[i].v) == len(v)
	if !inPlace {
		next.tlvs = append(next.tlvs, kv{k, v})
	}
	for j, e := range s.tlvs {
		if e.k != k {
			next.tlvs = append(next.tlvs, e)
		} else if inPlace && j == i {
			next.tlvs = append(next.tlvs, kv{k, v})
		}
	}
	if next.size() > AreaMax {
		return ErrTooLarge
	}
	*s = next
	return nil
}

func (s *setModel) delete(k Key) error {
	if k == 0 || k == 255 {
		return ErrKeyReserved
	}
	s.tlvs = slices.DeleteFunc(s.tlvs, func(e kv) bool { return e.k == k })
	return nil
}

func FuzzSetters(f *testing.F) {
	f.Add([]byte(""), []byte("\x10\x02\x10\x02\x11\x05\x10\x80"))
	f.Add([]byte("\x10\x02ab\x10\x02cd"), []byte("\x10\x02"))
	f.Add([]byte("\x10\x02ab"+anchor), []byte("\x11\x7f\x12\x7f\x10\x80\x11\x80"))
	f.Add([]byte("\x10\x06ab"+anchor), []byte("\x10\x30"))
	f.Add([]byte(anchor), []byte("\x00\x01\xff\x01\x00\x80"))
	f.Fuzz(func(t *testing.T, area, ops []byte) {
		var m Metadata
		if m.SetRaw(area, FormatTLV) != nil {
			return
		}
		tlvs, _ := parseTLVs(area)
		body, anchored := bytes.CutSuffix(area, []byte(anchor))
		if hasPadding(area) || !anchored && bytes.Contains(body, []byte(anchor[:3])) {
			return
		}
		model := setModel{tlvs: tlvs, anchored: anchored}

		for len(ops) >= 2 {
			k, op := Key(ops[0]), ops[1]
			ops = ops[2:]
			before := m
			var got, want error
			if op&0x80 != 0 {
				got, want = m.Delete(k), model.delete(k)
			} else {
				v := bytes.Repeat([]byte{op}, int(op))
				got, want = m.SetBytes(k, v), model.set(k, string(v))
			}
			if !errors.Is(got, want) {
				t.Fatalf("key %d, op %#x: got %v, want %v", k, op, got, want)
			}
			if got != nil && m != before {
				t.Fatalf("key %d, op %#x: changed by an error", k, op)
			}
			tlvs, err := collectTLVs(m.Raw())
			if err != nil || !equalKVs(tlvs, model.tlvs) || len(m.Raw()) != model.size() {
				t.Fatalf("key %d, op %#x: got %v, %v in %d bytes, want %v in %d",
					k, op, tlvs, err, len(m.Raw()), model.tlvs, model.size())
			}
		}

		b := m.AppendCmsg(nil)
		var d Metadata
		if ok, err := FindMetadata(b, &d); !ok || err != nil || !bytes.Equal(d.Raw(), m.Raw()) || d.Flags() != m.Flags() {
			t.Fatalf("through a control message: %v, %v, % x, want % x", ok, err, d.Raw(), m.Raw())
		}
	})
}

// hasPadding reports whether a good area has TLVs with key 0, which the model
// does not know, as it does not know values that read as anchors.
func hasPadding(area []byte) bool {
	for i := 0; i < len(area); i = tlvEnd(area, i) {
		if area[i] == 0 {
			return true
		}
	}
	return false
}

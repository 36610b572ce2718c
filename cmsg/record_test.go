// SPDX-License-Identifier: Apache-2.0

package cmsg

import (
	"bytes"
	"encoding"
	"encoding/binary"
	"errors"
	"testing"
)

var (
	_ encoding.BinaryAppender    = (*Metadata)(nil)
	_ encoding.BinaryMarshaler   = Metadata{}
	_ encoding.BinaryUnmarshaler = (*Metadata)(nil)
)

func TestRecordRoundTrip(t *testing.T) {
	m := fullRecord()
	b, err := m.MarshalBinary()
	if err != nil || len(b) != 64+len(m.Raw()) {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	for _, in := range [][]byte{b, append(bytes.Clone(b), "behind"...)} {
		var d Metadata
		if err := d.UnmarshalBinary(in); err != nil || d != m {
			t.Errorf("got %v, %v, want %v", d, err, m)
		}
	}
	c, err := m.AppendBinary([]byte("front"))
	if err != nil || string(c) != "front"+string(b) {
		t.Errorf("AppendBinary: % x, %v", c, err)
	}
}

// TestWire holds the wire form against bytes that are put together by offset.
func TestWire(t *testing.T) {
	b := make([]byte, 64+8)
	b[0], b[1], b[2], b[3] = 1, 64, 8, 0
	ne := binary.NativeEndian
	ne.PutUint16(b[4:], 1<<2|1<<5|1<<6)
	ne.PutUint16(b[6:], 1<<3)
	ne.PutUint32(b[24:], 0xABC)
	ne.PutUint32(b[36:], 2)
	ne.PutUint16(b[48:], 100)
	copy(b[50:], "\x81\x00")
	copy(b[64:], "\x10\x02ab"+anchor)

	var m Metadata
	if err := m.Decode(b); err != nil {
		t.Fatal(err)
	}
	mark, _ := m.Mark()
	index, _ := m.IfIndex()
	tci, _ := m.VLAN()
	proto, _ := m.VLANProtocol()
	v, _ := m.Bytes(16)
	if mark != 0xABC || index != 2 || tci != 100 || proto != 0x8100 || string(v) != "ab" || m.Flags() != FlagAggregate {
		t.Errorf("mark %#x, ifindex %d, tci %d, proto %#x, %q, %v", mark, index, tci, proto, v, m.Flags())
	}
	if _, ok := m.Hash(); ok {
		t.Error("hash is valid")
	}
	if got, _ := m.AppendBinary(nil); !bytes.Equal(got, b) {
		t.Errorf("got % x\nwant % x", got, b)
	}
}

func TestZeroRecordOnTheWire(t *testing.T) {
	b, _ := Metadata{}.MarshalBinary()
	if len(b) != 64 || b[0] != 1 || b[1] != 64 || b[2] != 0 {
		t.Fatalf("% x", b)
	}
	var m Metadata
	if err := m.Decode(b); err != nil || m.String() != "(empty)" {
		t.Errorf("%v, %v", m, err)
	}
}

func TestDecodeOlder(t *testing.T) {
	m := fullRecord()
	full, _ := m.MarshalBinary()
	for hdrLen := 8; hdrLen <= 64; hdrLen += 4 {
		b := append(bytes.Clone(full[:hdrLen]), m.Raw()...)
		b[1] = byte(hdrLen)
		var d Metadata
		if err := d.Decode(b); err != nil {
			t.Fatalf("%d: %v", hdrLen, err)
		}
		ends := map[string]int{
			"Timestamp": 16, "HWTimestamp": 24, "Mark": 28, "Priority": 32, "Hash": 36,
			"IfIndex": 40, "NAPIID": 44, "CPU": 48, "VLAN": 52, "VLANProtocol": 52, "LaunchTime": 64,
		}
		for _, g := range getters {
			v, ok := g.get(&d)
			if ok != (hdrLen >= ends[g.name]) || (ok && v != g.want) {
				t.Errorf("%d: %s: %v, %v", hdrLen, g.name, v, ok)
			}
		}
		if !bytes.Equal(d.Raw(), m.Raw()) || d.Err() != nil {
			t.Errorf("%d: area % x, %v", hdrLen, d.Raw(), d.Err())
		}
		if d.rec.HdrLen != 64 {
			t.Errorf("%d: hdr_len stays %d", hdrLen, d.rec.HdrLen)
		}
	}
}

func TestDecodeNewer(t *testing.T) {
	m := fullRecord()
	full, _ := m.MarshalBinary()
	for hdrLen := 68; hdrLen <= 252; hdrLen += 4 {
		b := append(bytes.Clone(full[:64]), bytes.Repeat([]byte{0xCC}, hdrLen-64)...)
		b = append(b, m.Raw()...)
		b[0], b[1] = 9, byte(hdrLen)
		binary.NativeEndian.PutUint16(b[4:], 0xFFFF)
		b[52] = 0xCC
		var d Metadata
		if err := d.Decode(b); err != nil {
			t.Fatalf("%d: %v", hdrLen, err)
		}
		if d != m {
			t.Errorf("%d: got %v, want %v", hdrLen, d, m)
		}
	}
}

func TestDecodeTruncated(t *testing.T) {
	m := fullRecord()
	full, _ := m.MarshalBinary()
	for n := range len(full) {
		d := fullRecord()
		err := d.Decode(full[:n])
		if n < 64 {
			if !errors.Is(err, ErrTruncated) || d != (Metadata{}) {
				t.Errorf("%d bytes: %v, %v", n, err, d)
			}
			continue
		}
		if err != nil || !d.Flags().Has(FlagTruncated) || !errors.Is(d.Err(), ErrTruncated) {
			t.Errorf("%d bytes: %v, flags %v, area: %v", n, err, d.Flags(), d.Err())
		}
		if got, want := d.Raw(), full[64:n&^3]; !bytes.Equal(got, want) {
			t.Errorf("%d bytes: area % x, want % x", n, got, want)
		}
		if mark, ok := d.Mark(); !ok || mark != 0xF0000001 {
			t.Errorf("%d bytes: mark %#x, %v", n, mark, ok)
		}
	}
}

func TestDecodeErrors(t *testing.T) {
	good, _ := Metadata{}.MarshalBinary()
	tests := []struct {
		name string
		at   int
		v    byte
		want error
	}{
		{"version 0", 0, 0, ErrVersion},
		{"hdr_len 0", 1, 0, ErrMalformed},
		{"hdr_len 4", 1, 4, ErrMalformed},
		{"hdr_len 54", 1, 54, ErrMalformed},
		{"hdr_len past the end", 1, 68, ErrTruncated},
		{"area_len 253", 2, 253, ErrMalformed},
	}
	for _, tt := range tests {
		b := bytes.Clone(good)
		b[tt.at] = tt.v
		m := fullRecord()
		if err := m.Decode(b); !errors.Is(err, tt.want) || m != (Metadata{}) {
			t.Errorf("%s: %v, want %v; %v", tt.name, err, tt.want, m)
		}
	}
}

func FuzzDecode(f *testing.F) {
	m := fullRecord()
	full, _ := m.MarshalBinary()
	for _, n := range []int{0, 7, 8, 55, 56, 60, 63, 64, 68, len(full)} {
		f.Add(full[:n])
	}
	f.Add([]byte{2, 8, 8, 0, 0xFF, 0xFF, 0, 0, 16, 2, 'a', 'b', 255, 2, 0x5B, 0})
	f.Add(append([]byte{1, 60, 252, 2, 0xFF, 0xFF, 0xFF, 0xFF}, make([]byte, 304)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		var m Metadata
		if err := m.Decode(b); err != nil {
			if m != (Metadata{}) {
				t.Fatalf("%v leaves %v", err, m)
			}
			return
		}
		hdrLen, areaLen := int(b[1]), int(b[2])
		area := b[hdrLen:min(len(b), hdrLen+areaLen)]
		if cut := len(area) < areaLen; cut {
			area = area[:len(area)/4*4]
			if !m.Flags().Has(FlagTruncated) {
				t.Fatal("cut without saying so")
			}
		}
		if !bytes.Equal(m.Raw(), area) {
			t.Fatalf("area % x, want % x", m.Raw(), area)
		}
		if mark, ok := m.Mark(); ok && (hdrLen < 28 || mark != binary.NativeEndian.Uint32(b[24:])) {
			t.Fatalf("mark %#x of a fixed part of %d", mark, hdrLen)
		}
		for k, v := range m.All() {
			if _, ok := m.Bytes(k); !ok || !bytes.Contains(area, v) {
				t.Fatalf("All gives %v %q, Bytes %v", k, v, ok)
			}
		}
		if _, err := m.MarshalJSON(); err != nil {
			t.Fatal(err)
		}
		again, _ := m.AppendBinary(nil)
		var d Metadata
		if err := d.Decode(again); err != nil || d != m {
			t.Fatalf("round trip: %v\n got %v\nwant %v", err, d, m)
		}
	})
}

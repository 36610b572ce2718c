// SPDX-License-Identifier: Apache-2.0

package cmsg

import (
	"bytes"
	"errors"
	"testing"
)

// anchor is the anchor of an area of TLVs.
const anchor = "\xff\x02\x5b\x00"

type kv struct {
	k Key
	v string
}

func collectTLVs(area []byte) (got []kv, err error) {
	it := TLVs(area)
	for k, v, ok := it.Next(); ok; k, v, ok = it.Next() {
		got = append(got, kv{k, string(v)})
	}
	return got, it.Err()
}

var tlvTests = []struct {
	name string
	area string
	want []kv // what precedes the malformation if there is one
	bad  bool
}{
	{name: "empty"},
	{name: "anchor only", area: anchor},
	{name: "one", area: "\x10\x02ab" + anchor, want: []kv{{16, "ab"}}},
	{name: "padded", area: "\x10\x03abc\x00\x00\x00" + anchor, want: []kv{{16, "abc"}}},
	{name: "padding that is not zero", area: "\x10\x03abcxyz" + anchor, want: []kv{{16, "abc"}}},
	{name: "empty value", area: "\x10\x00\x00\x00" + anchor, want: []kv{{16, ""}}},
	{name: "no anchor", area: "\x10\x02ab", want: []kv{{16, "ab"}}},
	{name: "repeated", area: "\x10\x02ab\x11\x01c\x00\x10\x02de" + anchor, want: []kv{{16, "ab"}, {17, "c"}, {16, "de"}}},
	{name: "zeros", area: "\x00\x00\x00\x00\x10\x02ab" + anchor, want: []kv{{16, "ab"}}},
	{name: "long padding", area: "\x00\x06\x10\x02ab\xff\xff\x10\x02cd" + anchor, want: []kv{{16, "cd"}}},
	{name: "only padding", area: "\x00\x00\x00\x00"},
	{name: "less than 4 bytes", area: "\x10", bad: true},
	{name: "3 bytes", area: "\x10\x01a", bad: true},
	{name: "value past the end", area: "\x10\x03ab", bad: true},
	{name: "padding past the end", area: "\x10\x03abc", bad: true},
	{name: "pad past the end", area: "\x10\x02ab\x00\x03\x00\x00", want: []kv{{16, "ab"}}, bad: true},
	{name: "into the anchor and past it", area: "\x10\x07ab" + anchor, bad: true},
	{name: "over the anchor", area: "\x10\x06ab" + anchor, bad: true},
	{name: "anchor in a value", area: "\x10\x06ab" + anchor + "\x11\x02cd", want: []kv{{16, "ab" + anchor}, {17, "cd"}}},
	{name: "longest length", area: "\x10\xffab" + anchor, bad: true},
	{name: "anchor first", area: anchor + "\x10\x02ab", bad: true},
	{name: "two anchors", area: anchor + anchor, bad: true},
	{name: "anchor with other magic", area: "\x10\x02ab\xff\x02\x5c\x00", want: []kv{{16, "ab"}}, bad: true},
	{name: "anchor of other length", area: "\x10\x02ab\xff\x01\x5b\x00", want: []kv{{16, "ab"}}, bad: true},
	{name: "anchor of 8 bytes", area: "\xff\x06\x5b\x00\x00\x00\x00\x00", bad: true},
	{name: "anchor of other format", area: "\x10\x02ab\xff\x02\x5b\x01", want: []kv{{16, "ab"}}, bad: true},
	{name: "bytes behind the anchor", area: "\x10\x02ab" + anchor + "\x00", want: []kv{{16, "ab"}}, bad: true},
}

func TestTLVs(t *testing.T) {
	for _, tt := range tlvTests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := collectTLVs([]byte(tt.area))
			if !equalKVs(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
			check := CheckTLVs([]byte(tt.area))
			for _, err := range []error{err, check} {
				if (err != nil) != tt.bad || errors.Is(err, ErrMalformed) != tt.bad {
					t.Errorf("error %v, want malformed %v", err, tt.bad)
				}
			}
			if tt.bad && err.Error() != check.Error() {
				t.Errorf("iterator says %q, CheckTLVs %q", err, check)
			}
		})
	}
}

func equalKVs(a, b []kv) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestTLVsCapacity(t *testing.T) {
	area := []byte("\x10\x01a\x00" + anchor)
	it := TLVs(area)
	_, v, ok := it.Next()
	if !ok || cap(v) != 1 {
		t.Fatalf("capacity is %d, %v", cap(v), ok)
	}
	area[2] = 'b'
	if v[0] != 'b' {
		t.Error("value does not alias")
	}
}

func TestAppendTLV(t *testing.T) {
	for n := range ValueMax + 1 {
		v := bytes.Repeat([]byte{0xAB}, n)
		dirty := bytes.Repeat([]byte{0xFF}, 300)
		b, err := AppendTLV(dirty[:0], 42, v)
		if err != nil {
			t.Fatal(err)
		}
		if len(b)%4 != 0 || len(b) < n+2 || len(b) > n+5 {
			t.Errorf("%d: TLV of %d bytes", n, len(b))
		}
		if b[0] != 42 || int(b[1]) != n || !bytes.Equal(b[2:2+n], v) {
			t.Errorf("%d: got % x", n, b)
		}
		if !bytes.Equal(b[2+n:], make([]byte, len(b)-2-n)) {
			t.Errorf("%d: padding % x", n, b[2+n:])
		}
		if len(b) > AreaMax-AnchorLen {
			t.Errorf("%d: TLV of %d bytes leaves no room for the anchor", n, len(b))
		}
	}
}

func TestTLVErrors(t *testing.T) {
	in := []byte("\x10\x02ab")
	for name, add := range map[string]func([]byte, Key, []byte) ([]byte, error){"append": AppendTLV, "prepend": PrependTLV} {
		tests := []struct {
			k    Key
			n    int
			want error
		}{
			{KeyPad, 0, ErrKeyReserved},
			{KeyAnchor, 2, ErrKeyReserved},
			{16, ValueMax + 1, ErrTooLarge},
			{16, 1000, ErrTooLarge},
		}
		for _, tt := range tests {
			b, err := add(in, tt.k, make([]byte, tt.n))
			if !errors.Is(err, tt.want) || string(b) != string(in) {
				t.Errorf("%s: key %d with %d bytes: got % x, %v, want %v", name, tt.k, tt.n, b, err, tt.want)
			}
		}
	}
}

func TestPrependTLV(t *testing.T) {
	area := AppendAnchor(make([]byte, 0, AreaMax), FormatTLV)
	var err error
	for i, v := range []string{"a", "", "bcdef"} {
		if area, err = PrependTLV(area, KeyUser+Key(i), []byte(v)); err != nil {
			t.Fatal(err)
		}
	}
	want := "\x12\x05bcdef\x00" + "\x11\x00\x00\x00" + "\x10\x01a\x00" + anchor
	if string(area) != want {
		t.Errorf("got %q, want %q", area, want)
	}

	full := make([]byte, AreaMax-8, AreaMax)
	if b, err := PrependTLV(full, 16, make([]byte, 7)); !errors.Is(err, ErrTooLarge) || len(b) != len(full) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if b, err := PrependTLV(full, 16, make([]byte, 6)); err != nil || len(b) != AreaMax {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

func TestAnchor(t *testing.T) {
	for _, f := range []Format{FormatTLV, FormatStruct, FormatRaw, 77} {
		got, ok := AnchorFormat(AppendAnchor([]byte("abc"), f))
		if !ok || got != f {
			t.Errorf("%v: got %v, %v", f, got, ok)
		}
	}
	if s := string(AppendAnchor(nil, FormatTLV)); s != anchor {
		t.Errorf("anchor is %q", s)
	}
	for _, s := range []string{"", "\x02\x5b\x00", "\xfe\x02\x5b\x00", "\xff\x03\x5b\x00", "\xff\x02\x5a\x00", anchor + "\x00"} {
		if f, ok := AnchorFormat([]byte(s)); ok {
			t.Errorf("%q: got %v", s, f)
		}
	}
}

// parseTLVs is a second reading of the rules, by slicing instead of by index.
func parseTLVs(area []byte) (got []kv, ok bool) {
	area = bytes.TrimSuffix(area, []byte(anchor))
	for len(area) > 0 {
		if len(area) < 2 || area[0] == 255 {
			return got, false
		}
		k, n := area[0], int(area[1])
		padded := n + 2
		for padded%4 != 0 {
			padded++
		}
		if padded > len(area) {
			return got, false
		}
		if k != 0 {
			got = append(got, kv{Key(k), string(area[2 : 2+n])})
		}
		area = area[padded:]
	}
	return got, true
}

func FuzzTLV(f *testing.F) {
	for _, tt := range tlvTests {
		f.Add([]byte(tt.area))
	}
	f.Fuzz(func(t *testing.T, area []byte) {
		want, ok := parseTLVs(area)
		got, err := collectTLVs(area)
		if !equalKVs(got, want) || (err == nil) != ok {
			t.Fatalf("% x: got %v, %v, want %v, %v", area, got, err, want, ok)
		}
		if (CheckTLVs(area) == nil) != ok {
			t.Fatalf("% x: CheckTLVs %v, want %v", area, CheckTLVs(area), ok)
		}

		var m Metadata
		if m.SetRaw(area, FormatTLV) != nil {
			return
		}
		if !bytes.Equal(m.Raw(), area) {
			t.Fatalf("% x: Raw % x", area, m.Raw())
		}
		first := map[Key]string{}
		for _, e := range want {
			if _, ok := first[e.k]; !ok {
				first[e.k] = e.v
			}
		}
		for k := range 256 {
			v, ok := m.Bytes(Key(k))
			w, has := first[Key(k)]
			if ok != has || string(v) != w {
				t.Fatalf("% x: key %d is %q, %v, want %q, %v", area, k, v, ok, w, has)
			}
		}
	})
}

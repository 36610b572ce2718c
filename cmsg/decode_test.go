// SPDX-License-Identifier: Apache-2.0

package cmsg

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"testing"
)

// header returns the header of a control message with any length in it.
func header(size uint64, level, typ int) []byte {
	b := make([]byte, headerLen)
	putHeader(b, int(size), level, typ)
	return b
}

func TestParse(t *testing.T) {
	three := Append(nil, 1, 35, []byte("12345678"))
	three = Append(three, SOL_BPF, SCM_RECORD, []byte{1, 2, 3})
	three = Append(three, -1, math.MinInt32, nil)
	all := []Message{
		{1, 35, []byte("12345678")},
		{SOL_BPF, SCM_RECORD, []byte{1, 2, 3}},
		{-1, math.MinInt32, []byte{}},
	}
	first := Space(8)
	second := first + Space(3)

	tests := []struct {
		name string
		oob  []byte
		want []Message
		bad  bool
	}{
		{name: "nil"},
		{name: "empty", oob: []byte{}},
		{name: "less than a header", oob: make([]byte, headerLen-1)},
		{name: "zeros", oob: make([]byte, headerLen), bad: true},
		{name: "three", oob: three, want: all},
		{name: "no padding at the end", oob: three[:first+Len(3)], want: all[:2]},
		{name: "part of the padding at the end", oob: three[:second-1], want: all[:2]},
		{name: "data cut", oob: three[:first+Len(3)-1], want: all[:1], bad: true},
		{name: "cut behind a header", oob: three[:first+headerLen], want: all[:1], bad: true},
		{name: "cut in a header", oob: three[:second+headerLen-1], want: all[:2]},
		{name: "length below the header's", oob: header(uint64(headerLen-1), 1, 1), bad: true},
		{name: "length of the header", oob: header(uint64(headerLen), 1, 2), want: []Message{{1, 2, []byte{}}}},
		{name: "length beyond", oob: header(uint64(headerLen+1), 1, 1), bad: true},
		{name: "largest length", oob: header(math.MaxUint64, 1, 1), bad: true},
		{name: "largest positive length", oob: header(math.MaxInt, 1, 1), bad: true},
		{name: "sign bit of the length", oob: header(1<<(8*align-1), 1, 1), bad: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []Message
			it := Parse(tt.oob)
			for m, ok := it.Next(); ok; m, ok = it.Next() {
				got = append(got, m)
				if cap(m.Data) != len(m.Data) {
					t.Errorf("capacity of data is %d, length %d", cap(m.Data), len(m.Data))
				}
			}
			if !slices.EqualFunc(got, tt.want, sameMessage) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
			if err := it.Err(); errors.Is(err, ErrMalformed) != tt.bad || (err != nil) != tt.bad {
				t.Errorf("error %v, want malformed %v", err, tt.bad)
			}
			if _, ok := it.Next(); ok {
				t.Error("Next gives more after the end")
			}
			if s := slices.Collect(All(tt.oob)); !slices.EqualFunc(s, tt.want, sameMessage) {
				t.Errorf("All gives %v, want %v", s, tt.want)
			}
		})
	}
}

func sameMessage(a, b Message) bool {
	return a.Level == b.Level && a.Type == b.Type && bytes.Equal(a.Data, b.Data)
}

func TestParseUnaligned(t *testing.T) {
	oob := Append([]byte(nil), 1, 2, []byte("abc"))
	for shift := range align {
		b := append(make([]byte, shift), oob...)
		it := Parse(b[shift:])
		if m, ok := it.Next(); !ok || !sameMessage(m, Message{1, 2, []byte("abc")}) {
			t.Errorf("shift %d: got %v, %v", shift, m, ok)
		}
	}
}

func TestParseAliases(t *testing.T) {
	oob := Append(nil, 1, 2, []byte("abc"))
	it := Parse(oob)
	m, _ := it.Next()
	oob[headerLen] = 'x'
	if string(m.Data) != "xbc" {
		t.Errorf("data is %q, does not alias", m.Data)
	}
}

func TestIteratorCopy(t *testing.T) {
	oob := Append(Append(nil, 1, 1, nil), 2, 2, nil)
	it := Parse(oob)
	it.Next()
	fork := it
	a, okA := it.Next()
	b, okB := fork.Next()
	if !okA || !okB || a.Level != 2 || b.Level != 2 {
		t.Errorf("original %v %v, copy %v %v", a, okA, b, okB)
	}
}

func TestAllStops(t *testing.T) {
	oob := Append(Append(nil, 1, 1, nil), 2, 2, nil)
	n := 0
	for range All(oob) {
		n++
		break
	}
	if n != 1 {
		t.Errorf("%d messages after break", n)
	}
}

func TestFind(t *testing.T) {
	oob := Append(nil, 1, 1, []byte("a"))
	oob = Append(oob, 1, 2, []byte("b"))
	oob = Append(oob, 1, 2, []byte("c"))
	behind := len(oob)
	oob = append(oob, header(1, 0, 0)...)
	oob = Append(oob, 3, 3, []byte("d"))

	if b, ok := Find(oob, 1, 2); !ok || string(b) != "b" {
		t.Errorf("got %q, %v, want the first", b, ok)
	}
	for _, p := range [][2]int{{2, 1}, {3, 3}} {
		if b, ok := Find(oob, p[0], p[1]); ok || b != nil {
			t.Errorf("%v: got %q, %v, want none", p, b, ok)
		}
	}
	if b, ok := Find(oob[behind+headerLen:], 3, 3); !ok || string(b) != "d" {
		t.Errorf("got %q, %v", b, ok)
	}
}

// SPDX-License-Identifier: Apache-2.0

package cmsg

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// putCmsg is put_cmsg() of net/core/scm.c, line by line: control shrinks from the
// front as msg_control does.
func putCmsg(control []byte, level, typ int, data []byte) (rest []byte, truncated bool) {
	cmlen := headerLen + len(data)
	if len(control) < headerLen {
		return control, true
	}
	if len(control) < cmlen {
		truncated = true
		cmlen = len(control)
	}
	if align == 8 {
		binary.NativeEndian.PutUint64(control[0:], uint64(cmlen))
		binary.NativeEndian.PutUint32(control[8:], uint32(level))
		binary.NativeEndian.PutUint32(control[12:], uint32(typ))
	} else {
		binary.NativeEndian.PutUint32(control[0:], uint32(cmlen))
		binary.NativeEndian.PutUint32(control[4:], uint32(level))
		binary.NativeEndian.PutUint32(control[8:], uint32(typ))
	}
	for i := headerLen; i < cmlen; i++ {
		control[i] = data[i-headerLen]
	}
	space := headerLen + len(data)
	for space%align != 0 {
		space++
	}
	if space > len(control) {
		space = len(control)
	}
	return control[space:], truncated
}

func TestWriter(t *testing.T) {
	const fill = 0xEE
	for size := 0; size <= 3*Space(13); size++ {
		got, want := bytes.Repeat([]byte{fill}, size), bytes.Repeat([]byte{fill}, size)
		w := NewWriter(got)
		rest, cut := want, false
		for i, n := range []int{13, 0, 8} {
			data := bytes.Repeat([]byte{byte(i + 1)}, n)
			w.Put(i, -i, data)
			var c bool
			rest, c = putCmsg(rest, i, -i, data)
			cut = cut || c
			if w.Len() != size-len(rest) || w.Truncated() != cut {
				t.Errorf("size %d, message %d: %d bytes, truncated %v, want %d, %v",
					size, i, w.Len(), w.Truncated(), size-len(rest), cut)
			}
		}
		if !bytes.Equal(got, want) {
			t.Errorf("size %d:\n got % x\nwant % x", size, got, want)
		}
		it := Parse(got[:w.Len()])
		for _, ok := it.Next(); ok; _, ok = it.Next() {
		}
		if err := it.Err(); err != nil {
			t.Errorf("size %d: what was written does not parse: %v", size, err)
		}
	}
}

func TestWriterCutsAsWritten(t *testing.T) {
	buf := make([]byte, headerLen+3)
	w := NewWriter(buf)
	w.Put(1, 2, []byte("abcdef"))
	w.Put(1, 3, nil)
	it := Parse(buf[:w.Len()])
	m, ok := it.Next()
	if !ok || string(m.Data) != "abc" || !w.Truncated() {
		t.Errorf("got %q, %v, truncated %v", m.Data, ok, w.Truncated())
	}
	if m, ok := it.Next(); ok {
		t.Errorf("second message %v", m)
	}
}

func TestWriterEmpty(t *testing.T) {
	var w Writer
	if w.Truncated() || w.Len() != 0 {
		t.Error("zero Writer is in use")
	}
	w.Put(1, 1, nil)
	if !w.Truncated() || w.Len() != 0 {
		t.Errorf("truncated %v, %d bytes", w.Truncated(), w.Len())
	}
}

func FuzzWriter(f *testing.F) {
	f.Add(uint16(0), []byte{0})
	f.Add(uint16(16), []byte{0, 0})
	f.Add(uint16(17), []byte{1, 5})
	f.Add(uint16(40), []byte{4, 0, 8})
	f.Add(uint16(63), []byte{12, 3, 250})
	f.Add(uint16(400), []byte{255, 100, 1, 0})
	f.Fuzz(func(t *testing.T, size uint16, sizes []byte) {
		size %= 1024
		got, want := bytes.Repeat([]byte{0xEE}, int(size)), bytes.Repeat([]byte{0xEE}, int(size))
		w := NewWriter(got)
		rest, cut := want, false
		for i, n := range sizes {
			data := bytes.Repeat([]byte{byte(i)}, int(n))
			w.Put(i, int(n), data)
			var c bool
			rest, c = putCmsg(rest, i, int(n), data)
			cut = cut || c
		}
		if w.Len() != len(want)-len(rest) || w.Truncated() != cut || !bytes.Equal(got, want) {
			t.Errorf("%d bytes, truncated %v, want %d, %v\n got % x\nwant % x",
				w.Len(), w.Truncated(), len(want)-len(rest), cut, got, want)
		}
	})
}

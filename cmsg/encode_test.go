// SPDX-License-Identifier: Apache-2.0

package cmsg

import (
	"bytes"
	"errors"
	"testing"
	"unsafe"
)

func TestSizes(t *testing.T) {
	want := map[uintptr][4]int{8: {16, 17, 24, 24}, 4: {12, 13, 16, 20}}[unsafe.Sizeof(uintptr(0))]
	if got := [4]int{HeaderLen, Len(1), Space(1), Space(8)}; got != want {
		t.Errorf("header, Len(1), Space(1), Space(8): got %v, want %v", got, want)
	}
	if Space(0) != HeaderLen {
		t.Errorf("Space(0) = %d", Space(0))
	}
}

func TestAppendAndPut(t *testing.T) {
	for n := range 40 {
		data := bytes.Repeat([]byte{0xAB}, n)

		dirty := bytes.Repeat([]byte{0xFF}, 128)
		b := Append(dirty[:0], 7, 9, data)
		if len(b) != Space(n) {
			t.Fatalf("%d: appended %d bytes, want %d", n, len(b), Space(n))
		}
		if getLen(b) != uint64(Len(n)) || getLevel(b) != 7 || getType(b) != 9 {
			t.Errorf("%d: header % x", n, b[:headerLen])
		}
		if !bytes.Equal(b[headerLen:Len(n)], data) {
			t.Errorf("%d: data % x", n, b[headerLen:])
		}
		for _, c := range b[Len(n):] {
			if c != 0 {
				t.Errorf("%d: padding % x", n, b[Len(n):])
			}
		}

		buf := bytes.Repeat([]byte{0xFF}, 128)
		k, err := Put(buf, 7, 9, data)
		if err != nil || !bytes.Equal(buf[:k], b) {
			t.Errorf("%d: Put wrote % x, %v, Append % x", n, buf[:k], err, b)
		}
		if buf[k] != 0xFF {
			t.Errorf("%d: Put wrote past its end", n)
		}
	}
}

func TestPutTooLarge(t *testing.T) {
	buf := bytes.Repeat([]byte{0xFF}, Space(5)-1)
	n, err := Put(buf, 1, 1, make([]byte, 5))
	if n != 0 || !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %d, %v", n, err)
	}
	if !bytes.Equal(buf, bytes.Repeat([]byte{0xFF}, len(buf))) {
		t.Error("Put wrote to a buffer that is too small")
	}
	if n, err := Put(make([]byte, Space(5)), 1, 1, make([]byte, 5)); err != nil || n != Space(5) {
		t.Errorf("exact fit: got %d, %v", n, err)
	}
}

func TestAppendKeepsWhatIsThere(t *testing.T) {
	a := Append(nil, 1, 1, []byte("a"))
	b := Append(bytes.Clone(a), 2, 2, []byte("b"))
	if !bytes.Equal(b[:len(a)], a) || len(b) != 2*Space(1) {
		t.Errorf("got % x", b)
	}
}

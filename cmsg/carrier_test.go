// SPDX-License-Identifier: Apache-2.0

package cmsg

import (
	"bytes"
	"errors"
	"testing"
)

func TestAppendCmsg(t *testing.T) {
	m := fullRecord()
	oob := Append(nil, 1, 2, []byte("other"))
	before := len(oob)
	oob = m.AppendCmsg(oob)
	rec, _ := m.MarshalBinary()
	if want := Append(nil, SOL_BPF, SCM_RECORD, rec); !bytes.Equal(oob[before:], want) {
		t.Errorf("got % x\nwant % x", oob[before:], want)
	}
	oob = Append(oob, 3, 4, nil)

	var d Metadata
	if ok, err := FindMetadata(oob, &d); !ok || err != nil || d != m {
		t.Errorf("%v, %v, %v", ok, err, d)
	}
}

func TestMetadataSpace(t *testing.T) {
	var m Metadata
	if err := m.SetRaw(make([]byte, AreaMax), FormatRaw); err != nil {
		t.Fatal(err)
	}
	if n := len(m.AppendCmsg(nil)); n != MetadataSpace || n != Space(64+AreaMax) {
		t.Errorf("takes %d bytes, MetadataSpace is %d", n, MetadataSpace)
	}
}

func TestFindMetadata(t *testing.T) {
	var one, two Metadata
	one.SetMark(1)
	two.SetMark(2)
	bad := header(1, 0, 0)

	tests := []struct {
		name string
		oob  []byte
		ok   bool
		want error
	}{
		{name: "empty"},
		{name: "others", oob: Append(Append(nil, SOL_BPF, 2, nil), 1, SCM_RECORD, nil)},
		{name: "two", oob: two.AppendCmsg(one.AppendCmsg(nil)), ok: true},
		{name: "in front of a malformed one", oob: append(one.AppendCmsg(nil), bad...), ok: true},
		{name: "behind a malformed one", oob: one.AppendCmsg(bad), want: ErrMalformed},
		{name: "version 0", oob: Append(nil, SOL_BPF, SCM_RECORD, make([]byte, 56)), want: ErrVersion},
		{name: "empty record", oob: Append(nil, SOL_BPF, SCM_RECORD, nil), want: ErrTruncated},
	}
	for _, tt := range tests {
		m := fullRecord()
		ok, err := FindMetadata(tt.oob, &m)
		if ok != tt.ok || !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, %v, want %v, %v", tt.name, ok, err, tt.ok, tt.want)
		}
		if mark, _ := m.Mark(); ok && mark != 1 {
			t.Errorf("%s: mark %d, want that of the first", tt.name, mark)
		}
		if !ok && m != (Metadata{}) {
			t.Errorf("%s: leaves %v", tt.name, m)
		}
	}
}

// TestCutByWriter has a record cut the way the kernel cuts it.
func TestCutByWriter(t *testing.T) {
	m := fullRecord()
	rec, _ := m.MarshalBinary()
	for size := range Space(len(rec)) + 1 {
		w := NewWriter(make([]byte, size))
		w.Put(SOL_BPF, SCM_RECORD, rec)
		var d Metadata
		ok, err := FindMetadata(w.buf[:w.Len()], &d)
		switch data := size - headerLen; {
		case data < 0:
			if ok || err != nil {
				t.Errorf("%d: %v, %v, want none", size, ok, err)
			}
		case data < 64:
			if ok || !errors.Is(err, ErrTruncated) {
				t.Errorf("%d: %v, %v, want truncated", size, ok, err)
			}
		default:
			if !ok || err != nil || d.Flags().Has(FlagTruncated) != (data < len(rec)) {
				t.Errorf("%d: %v, %v, %v", size, ok, err, d.Flags())
			}
		}
	}
}

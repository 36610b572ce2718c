// SPDX-License-Identifier: Apache-2.0

package abi

import "testing"

func record(header, area int) (r Record) {
	r.HdrLen, r.AreaLen = uint8(header), uint8(area)
	for i := range r.words() {
		if i > 0 && i < r.used() {
			r.words()[i] = uint64(i)
		}
	}
	return r
}

func TestUsed(t *testing.T) {
	for _, tt := range []struct{ header, area, want int }{
		{0, 0, 0}, {64, 0, 8}, {64, 1, 9}, {64, 8, 9}, {64, 252, 40}, {255, 255, 40},
	} {
		r := record(tt.header, tt.area)
		if got := r.used(); got != tt.want {
			t.Errorf("%+v: %d words", tt, got)
		}
	}
}

// TestCopies leave nothing of a longer record.
func TestCopies(t *testing.T) {
	var set, load Record
	for _, area := range []int{252, 0, 8, 252, 1} {
		src := record(RecordHdrLen, area)
		set.Set(&src)
		load.Load(&src)
		if set != src || load != src {
			t.Errorf("area of %d bytes: %v and %v, want %v", area, set, load, src)
		}
	}
	load.Set(new(Record))
	if load != (Record{}) {
		t.Errorf("nothing: %v", load)
	}
}

// TestLoadOfUsedSlot holds that what is behind the area, of an older record in the slot, is
// left there: records of one packet are equal.
func TestLoadOfUsedSlot(t *testing.T) {
	for area := range 253 {
		want := record(RecordHdrLen, area)
		end := RecordHdrLen + area
		clear(want.bytes()[end:])
		slot := want
		for i := end; i < len(slot.bytes()); i++ {
			slot.bytes()[i] = 0xff
		}
		var got Record
		if got.Load(&slot); got != want {
			t.Errorf("area of %d bytes: %x, want %x", area, got, want)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"sync/atomic"
	"unsafe"
)

// RecordHdrLen is the size of a record without its area.
const RecordHdrLen = int(unsafe.Offsetof(Record{}.Area))

const recordWords = unsafe.Sizeof(Record{}) / 8

func (r *Record) words() *[recordWords]uint64 { return (*[recordWords]uint64)(unsafe.Pointer(r)) }

func (r *Record) bytes() *[recordWords * 8]byte { return (*[recordWords * 8]byte)(unsafe.Pointer(r)) }

// used is how many words of the record are in use: its fixed part, and its area.
func (r *Record) used() int {
	return min((int(r.HdrLen)+int(r.AreaLen)+7)/8, int(recordWords))
}

// Load makes r a copy of src, which programs may be writing meanwhile: what it copies
// may be of several records then. The loads are atomic, which keeps their order: a
// number that is loaded afterwards vouches for all of them.
func (r *Record) Load(src *Record) {
	to, from := r.words(), src.words()
	old := r.used()
	to[0] = atomic.LoadUint64(&from[0])
	used := r.used()
	for i := 1; i < used; i++ {
		to[i] = atomic.LoadUint64(&from[i])
	}
	r.clear(used, old)
	// A slot holds the end of an older record behind a shorter one.
	if end := int(r.HdrLen) + int(r.AreaLen); end < used*8 {
		clear(r.bytes()[end : used*8])
	}
}

// Set makes r a copy of src. It touches what is in use of the two, no more.
func (r *Record) Set(src *Record) {
	used, old := src.used(), r.used()
	copy(r.words()[:used], src.words()[:used])
	r.clear(used, old)
}

func (r *Record) clear(from, to int) {
	if from < to {
		clear(r.words()[from:to])
	}
}

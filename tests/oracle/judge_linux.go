// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
)

// A judge knows what one connection's server read, and which frames may have
// brought it.
type judge struct {
	frames []frame
	flow   *flow
	// data and opened are the flow's, which late frames still add to.
	data, opened []uint32
	stream       []byte
	index        rangeIndex
	setting      setting
}

// rangeIndex finds the frames that brought a byte: those of each bucket of the
// stream.
type rangeIndex struct {
	starts []int32 // of each bucket, in ids
	ids    []uint32
}

const bucketShift = 11

func newIndex(frames []frame, ids []uint32, size int) rangeIndex {
	buckets := size>>bucketShift + 1
	x := rangeIndex{starts: make([]int32, buckets+1)}
	each := func(id uint32, f func(bucket int)) {
		fr := &frames[id]
		first, last := max(fr.off, 0)>>bucketShift, (fr.off+fr.size-1)>>bucketShift
		for b := int(first); b <= int(last) && b < buckets; b++ {
			f(b)
		}
	}
	for _, id := range ids {
		each(id, func(b int) { x.starts[b+1]++ })
	}
	for b := range buckets {
		x.starts[b+1] += x.starts[b]
	}
	x.ids = make([]uint32, x.starts[buckets])
	at := slices.Clone(x.starts)
	for _, id := range ids {
		each(id, func(b int) { x.ids[at[b]] = id; at[b]++ })
	}
	return x
}

func newJudge(w *wire, f *flow, stream []byte, s setting) *judge {
	w.mu.Lock()
	defer w.mu.Unlock()
	j := &judge{frames: w.frames, flow: f, data: f.data, opened: f.opened, stream: stream, setting: s}
	j.index = newIndex(j.frames, j.data, len(stream))
	return j
}

// A match is a frame that may have brought a byte: its bytes there are those that
// were read.
type match struct {
	id  uint32
	run int // of bytes that are the frame's, around the byte
	// whole: the run ends where the frame does, on one side. TCP may have taken no more
	// of it than that.
	whole bool
}

// longest is how far a run is followed: more tells nothing more.
const longest = 16

// matches returns the frames that may have brought a byte, in buf. The one that did
// is always among them.
func (j *judge) matches(at int, buf []match) []match {
	buf = buf[:0]
	b := at >> bucketShift
	for _, id := range j.index.ids[j.index.starts[b]:j.index.starts[b+1]] {
		f := &j.frames[id]
		if int32(at) < f.off || int32(at) >= f.off+f.size || j.stream[at] != contentByte(id, uint32(at)) {
			continue
		}
		m := match{id: id, run: 1}
		i := at - 1
		for ; i >= 0 && int32(i) >= f.off && m.run < longest && j.stream[i] == contentByte(id, uint32(i)); i-- {
			m.run++
		}
		m.whole = int32(i) < f.off
		for i = at + 1; i < len(j.stream) && int32(i) < f.off+f.size && m.run < longest && j.stream[i] == contentByte(id, uint32(i)); i++ {
			m.run++
		}
		m.whole = m.whole || int32(i) >= f.off+f.size
		buf = append(buf, m)
	}
	return buf
}

// enough is how many bytes more than any other a frame's run has to have where
// several match: that others have as many by chance happens once in 2^24. That does not
// count against a frame which TCP may have taken no more of.
const enough = 3

// truth returns the frame that brought a byte, 0 where that is undecided. ok is
// false where no frame did: then the wire has lost track.
func (j *judge) truth(at int, buf []match) (id uint32, ms []match, ok bool) {
	ms = j.matches(at, buf)
	if len(ms) == 0 {
		return 0, ms, false
	}
	best, second := ms[0], match{}
	whole := false
	for _, m := range ms[1:] {
		if m.run > best.run {
			best, m = m, best
		}
		if m.run > second.run {
			second = m
		}
		whole = whole || m.whole
	}
	if len(ms) > 1 && (whole || best.run < second.run+enough) {
		return 0, ms, true
	}
	return best.id, ms, true
}

// read judges the answer to what brought the last byte read.
func (j *judge) read(a *answer) (outcome, string) {
	if a.failed != wrong {
		return a.failed, ""
	}
	if a.read == 0 {
		return a.weigh(false), "nothing had been read"
	}
	at := int(a.read) - 1
	var buf [32]match
	id, ms, ok := j.truth(at, buf[:0])
	if !ok {
		return undecided, fmt.Sprintf("no frame brought byte %d: the oracle has lost track", at)
	}
	possible := slices.ContainsFunc(ms, func(m match) bool { return j.frames[m.id].tag == a.tag })
	if !possible {
		return a.weigh(false), j.tell(at, a, ms)
	}
	if id == 0 {
		same := !slices.ContainsFunc(ms, func(m match) bool { return j.frames[m.id].tag != a.tag })
		if !same {
			return undecided, ""
		}
	} else if j.frames[id].tag != a.tag {
		return a.weigh(false), j.tell(at, a, ms)
	}
	return a.weigh(true), ""
}

// tell says what there is to know of a wrong answer.
func (j *judge) tell(at int, a *answer, ms []match) string {
	var b strings.Builder
	fmt.Fprintf(&b, "byte %d was brought by", at)
	for _, m := range ms {
		fmt.Fprintf(&b, " %s", j.describe(m.id))
	}
	fmt.Fprintf(&b, ", the record is of %s", j.describe(a.tag))
	var others []string
	for _, id := range j.data {
		f := &j.frames[id]
		if int32(at) >= f.off && int32(at) < f.off+f.size {
			others = append(others, j.describe(id))
		}
	}
	fmt.Fprintf(&b, "; all with that byte: %s", strings.Join(others, ", "))
	return b.String()
}

func (j *judge) describe(id uint32) string {
	if id == 0 || int(id) >= len(j.frames) {
		return fmt.Sprintf("#%d (no such frame)", id)
	}
	f := &j.frames[id]
	s := fmt.Sprintf("#%d [%d, %d) %v", id, f.off, f.off+f.size, f.kind)
	if f.tag != id {
		s += fmt.Sprintf(" tagged %d", f.tag)
	}
	if f.flow != j.flow.number {
		s += " of another connection"
	}
	return s
}

// latest judges the answer to which segment came last. newestRead is the newest
// frame that had certainly been taken before the question: one whose bytes had
// been read.
func (j *judge) latest(a *answer, newestRead uint32) (outcome, string) {
	if a.failed != wrong {
		return a.failed, ""
	}
	if int(a.tag) >= len(j.frames) || j.frames[a.tag].flow != j.flow.number {
		return a.weigh(false), "it is " + j.describe(a.tag)
	}
	if k := j.frames[a.tag].kind; k.never() {
		return a.weigh(false), "TCP never accepted " + j.describe(a.tag)
	}
	// GRO lets a segment that has to go on at once overtake those that wait and have
	// other metadata.
	if !j.setting.gro && newestRead != 0 && j.frames[newestRead].tag > a.tag {
		return a.weigh(false), fmt.Sprintf("it is %s, and %s had been read", j.describe(a.tag), j.describe(newestRead))
	}
	if a.tag > a.after {
		return a.weigh(false), "it is of a frame that was not there yet: " + j.describe(a.tag)
	}
	return a.weigh(true), ""
}

// opening judges the answer to which segment opened the connection. saved is the
// tag of the SYN that the kernel kept, 0 where it kept none.
func (j *judge) opening(a *answer, saved uint32) (outcome, string) {
	if a.failed != wrong {
		return a.failed, ""
	}
	if int(a.tag) >= len(j.frames) || j.frames[a.tag].flow != j.flow.number {
		return a.weigh(false), "it is " + j.describe(a.tag)
	}
	if saved != 0 {
		if a.tag == saved {
			return a.weigh(true), ""
		}
		return a.weigh(false), fmt.Sprintf("it is %s, and the kernel opened it by %s", j.describe(a.tag), j.describe(saved))
	}
	if slices.Contains(j.opened, a.tag) {
		if a.tag == j.opened[0] {
			return a.weigh(true), ""
		}
		// A cookie does not tell which of equal SYNs it answered. Where both
		// dial, a SYN and a SYN-ACK open it.
		if j.setting.cookies || j.setting.backlog || j.flow.conn.mode == crossed {
			return undecided, ""
		}
	}
	if j.frames[a.tag].kind == abortedSYN && (j.setting.cookies || j.setting.backlog) {
		return undecided, ""
	}
	return a.weigh(false), fmt.Sprintf("it is %s, and it was opened by one of %d", j.describe(a.tag), j.opened)
}

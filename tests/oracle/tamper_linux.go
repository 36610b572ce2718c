// SPDX-License-Identifier: Apache-2.0

package main

import "time"

// tamper does to a segment of the client what the plan says.
func (w *wire) tamper(f *flow, p *packet) {
	what, how := f.nextOp(w.now)
	if f.mergeLeft > 0 {
		if w.joins(f, p) {
			return
		}
		w.endMerge(f)
	}
	switch what {
	case opPass:
		w.toServer(f, p, original)
	case opDrop:
	case opDelay:
		w.delay(f, p, original, time.Duration(how)*50*time.Microsecond)
	case opHold:
		w.hold(f, p, original, 1+int(how%32))
	case opDuplicate:
		w.toServer(f, p, original)
		if how%4 == 0 {
			w.toServer(f, p, duplicate)
		}
		w.hold(f, p, duplicate, 1+int(how%64))
	case opSplit:
		w.split(f, p, 1+int(how))
	case opMerge:
		f.merge, f.mergeLeft, f.mergeDue = *p, 1+int(how%8), w.now+int64(patience)
	case opCorrupt:
		bad := *p
		bad.badSum = true
		w.toServer(f, &bad, corrupt)
	case opCollapse:
		w.collapse(f, p, int(how))
	case opLoseAcks:
		f.loseACKs = int(how % 32)
		w.toServer(f, p, original)
	case opSpoof:
		w.spoof(f, p, how)
		w.toServer(f, p, original)
	case opSpoofBurst:
		for i := range 1 + how%16 {
			w.spoof(f, p, how>>4+i)
		}
		w.toServer(f, p, original)
	}
}

// split sends a segment in pieces of a size, or of any sizes.
func (w *wire) split(f *flow, p *packet, size int) {
	// Nothing is to become a thousand frames.
	size = max(size, p.payload/16)
	if p.payload <= size {
		w.toServer(f, p, original)
		return
	}
	for at := 0; at < p.payload; {
		n := min(1+f.rng.IntN(2*size), p.payload-at)
		piece := p.piece(at, n)
		w.toServer(f, &piece, original)
		at += n
	}
}

// mostPayload is how much of a segment with this one's headers fits into a frame.
func (p *packet) mostPayload() int { return serverMTU - p.size }

// joins adds a segment to the one that waits, where it follows that.
func (w *wire) joins(f *flow, p *packet) bool {
	m := &f.merge
	if m.end() != p.seq() || m.has(fin) || m.payload+p.payload > m.mostPayload() || p.size != m.size {
		return false
	}
	size := m.payload + p.payload
	start := m.seq()
	*m = *p
	m.setSeq(start)
	m.payload = size
	if f.mergeLeft--; f.mergeLeft == 0 {
		f.mergeLeft = 1
		w.endMerge(f)
	}
	return true
}

func (w *wire) endMerge(f *flow) {
	f.mergeLeft = 0
	w.toServer(f, &f.merge, original)
}

// collapse sends a segment with what came before it, as a retransmission may that
// the client has put together.
func (w *wire) collapse(f *flow, p *packet, how int) {
	m := *p
	back := min(how*16, int(f.offset(p.seq())), m.mostPayload()-m.payload)
	if p.payload == 0 || back <= 0 {
		w.toServer(f, p, original)
		return
	}
	m.setSeq(p.seq() - uint32(back))
	m.payload += back
	w.toServer(f, &m, collapsed)
}

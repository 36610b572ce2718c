// SPDX-License-Identifier: Apache-2.0

package main

import "encoding/binary"

// farAway is a distance of sequence numbers that no window reaches.
const farAway = 0x1000_0000

// A spoofer makes a segment of one of the client's, and says what it is. It may
// have none in this situation.
type spoofer func(w *wire, f *flow, p *packet) (kind, bool)

var spoofers = [...]spoofer{
	corruptUnread, corruptAhead, corruptFIN,
	aheadUnread, aheadNext, aheadFIN, aheadBare,
	ancientUnread, ancientNext, ancientBare,
	stampUnread, stampNext, stampBare,
	injectNext, injectSmall, injectGap,
	staleUnread, staleByte,
	keepAlive, keepAliveByte, windowProbe,
	bareAgain, zeroWindow,
	beyondWindow, behindWindow, resetOutside, resetInside,
	synAgain, synAckAgain, withoutFlag,
}

// spoof sends a segment that the client has not sent.
func (w *wire) spoof(f *flow, p *packet, how byte) {
	if !f.haveAcked {
		return
	}
	s := *p
	s.setFlags(ack)
	if p.has(rst) {
		return
	}
	if k, ok := spoofers[int(how)%len(spoofers)](w, f, &s); ok {
		w.toServer(f, &s, k)
	}
}

// unread is a range that ends somewhere around what the server has next: records
// of segments that wait there must not become the spoofed one's.
func unread(w *wire, f *flow, p *packet) bool {
	back := uint32(f.rng.IntN(3000))
	if done := f.offset(f.acked); done < int32(back) {
		back = uint32(max(done, 0))
	}
	p.setSeq(f.acked - back)
	p.payload = min(1+int(back)+f.rng.IntN(1400), p.mostPayload())
	return true
}

// mostAhead is how far the wire gets ahead of the client.
const mostAhead = 4000

// at is a range that begins so many bytes behind what the server has next, with
// bytes that the client is going to send.
func at(w *wire, f *flow, p *packet, ahead, size int) bool {
	p.setSeq(f.acked + uint32(ahead))
	if before(f.sent+mostAhead, p.seq()) {
		return false
	}
	left := f.conn.share() - int(f.offset(p.seq()))
	p.payload = min(size, left, p.mostPayload())
	return p.payload > 0 && f.offset(p.seq()) >= 0
}

func next(w *wire, f *flow, p *packet) bool { return at(w, f, p, 0, 1+f.rng.IntN(2000)) }

func empty(f *flow, p *packet) {
	p.setSeq(f.acked)
	p.payload = 0
}

func corruptUnread(w *wire, f *flow, p *packet) (kind, bool) {
	p.badSum = true
	return corrupt, unread(w, f, p)
}

func corruptAhead(w *wire, f *flow, p *packet) (kind, bool) {
	p.badSum = true
	return corrupt, at(w, f, p, f.rng.IntN(2000), 100+f.rng.IntN(2000))
}

func corruptFIN(w *wire, f *flow, p *packet) (kind, bool) {
	empty(f, p)
	p.setSeq(f.acked + uint32(f.rng.IntN(4)) - 1)
	p.setFlags(ack | fin)
	p.badSum = true
	return corrupt, true
}

func aheadUnread(w *wire, f *flow, p *packet) (kind, bool) {
	p.setAck(p.ack() + farAway)
	return aheadACK, unread(w, f, p)
}

func aheadNext(w *wire, f *flow, p *packet) (kind, bool) {
	p.setAck(p.ack() + 1 + uint32(f.rng.IntN(farAway)))
	return aheadACK, next(w, f, p)
}

func aheadFIN(w *wire, f *flow, p *packet) (kind, bool) {
	empty(f, p)
	p.setSeq(f.acked + uint32(f.rng.IntN(4)) - 1)
	p.setFlags(ack | fin)
	p.setAck(p.ack() + farAway)
	return aheadACK, true
}

func aheadBare(w *wire, f *flow, p *packet) (kind, bool) {
	empty(f, p)
	p.setAck(p.ack() + farAway)
	return aheadACK, true
}

func ancientUnread(w *wire, f *flow, p *packet) (kind, bool) {
	p.setAck(p.ack() - farAway)
	return ancientACK, unread(w, f, p)
}

func ancientNext(w *wire, f *flow, p *packet) (kind, bool) {
	p.setAck(p.ack() - farAway)
	return ancientACK, next(w, f, p)
}

func ancientBare(w *wire, f *flow, p *packet) (kind, bool) {
	empty(f, p)
	p.setAck(p.ack() - farAway)
	return ancientACK, true
}

// backdate takes the timestamp back by more than PAWS lets pass.
func backdate(f *flow, p *packet) bool {
	stamp := p.timestamp()
	if stamp == nil {
		return false
	}
	binary.BigEndian.PutUint32(stamp, binary.BigEndian.Uint32(stamp)-100_000)
	return true
}

func stampUnread(w *wire, f *flow, p *packet) (kind, bool) {
	return oldStamp, backdate(f, p) && unread(w, f, p)
}

func stampNext(w *wire, f *flow, p *packet) (kind, bool) {
	return oldStamp, backdate(f, p) && next(w, f, p)
}

func stampBare(w *wire, f *flow, p *packet) (kind, bool) {
	empty(f, p)
	// One that is in order may pass, as it tells nothing.
	p.setSeq(f.acked + 1)
	return oldStamp, backdate(f, p)
}

func injectNext(w *wire, f *flow, p *packet) (kind, bool) {
	return injected, next(w, f, p)
}

func injectSmall(w *wire, f *flow, p *packet) (kind, bool) {
	return injected, at(w, f, p, 0, 1+f.rng.IntN(3))
}

func injectGap(w *wire, f *flow, p *packet) (kind, bool) {
	return injected, at(w, f, p, f.rng.IntN(3000), 1+f.rng.IntN(300))
}

func staleUnread(w *wire, f *flow, p *packet) (kind, bool) {
	if !unread(w, f, p) || f.offset(p.seq()) < 0 {
		return stale, false
	}
	p.payload = min(p.payload, int(f.acked-p.seq()))
	return stale, p.payload > 0
}

func staleByte(w *wire, f *flow, p *packet) (kind, bool) {
	p.setSeq(f.acked - 1)
	p.payload = 1
	return stale, f.offset(p.seq()) >= 0
}

func keepAlive(w *wire, f *flow, p *packet) (kind, bool) {
	empty(f, p)
	p.setSeq(f.acked - 1)
	return probe, true
}

func keepAliveByte(w *wire, f *flow, p *packet) (kind, bool) {
	p.setSeq(f.acked - 1)
	p.payload = 1
	return probe, f.offset(p.seq()) >= 0
}

func windowProbe(w *wire, f *flow, p *packet) (kind, bool) {
	return probe, at(w, f, p, 0, 1)
}

func bareAgain(w *wire, f *flow, p *packet) (kind, bool) {
	empty(f, p)
	return bare, true
}

func zeroWindow(w *wire, f *flow, p *packet) (kind, bool) {
	empty(f, p)
	p.setWindow(0)
	return bare, true
}

func beyondWindow(w *wire, f *flow, p *packet) (kind, bool) {
	p.setSeq(f.acked + farAway)
	p.payload = 1 + f.rng.IntN(1400)
	return outside, true
}

func behindWindow(w *wire, f *flow, p *packet) (kind, bool) {
	p.setSeq(f.acked - farAway)
	p.payload = 1 + f.rng.IntN(1400)
	return outside, true
}

func resetOutside(w *wire, f *flow, p *packet) (kind, bool) {
	empty(f, p)
	p.setSeq(f.acked - 1 - uint32(f.rng.IntN(farAway)))
	p.setFlags(rst)
	return badReset, true
}

// resetInside is in the window, and not exactly what comes next (RFC 5961): the
// server cannot have got there.
func resetInside(w *wire, f *flow, p *packet) (kind, bool) {
	empty(f, p)
	p.setSeq(f.sent + 4*mostAhead + uint32(f.rng.IntN(100)))
	p.setFlags(rst)
	return badReset, true
}

func synAgain(w *wire, f *flow, p *packet) (kind, bool) {
	empty(f, p)
	p.setSeq(f.isn)
	p.setFlags(syn)
	return strangeSYN, true
}

func synAckAgain(w *wire, f *flow, p *packet) (kind, bool) {
	empty(f, p)
	p.setSeq(f.acked + 1)
	p.setFlags(syn | ack)
	return strangeSYN, true
}

func withoutFlag(w *wire, f *flow, p *packet) (kind, bool) {
	p.setFlags(psh)
	return withoutACK, next(w, f, p)
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"
)

// tamperUDP does to a datagram of the client what the plan says.
func (w *wire) tamperUDP(f *flow, p *packet) {
	what, how := f.nextOp(w.now)
	switch what {
	case opDrop:
	case opDelay:
		w.delay(f, p, original, time.Duration(how)*50*time.Microsecond)
	case opHold:
		w.hold(f, p, original, 1+int(how%32))
	case opDuplicate:
		w.datagramToServer(f, p, original, 0)
		w.hold(f, p, duplicate, 1+int(how%32))
	case opSplit, opMerge:
		w.datagramToServer(f, p, original, 8+int(how)*4)
	case opCorrupt, opCollapse, opLoseAcks:
		bad := *p
		bad.badSum = true
		w.datagramToServer(f, &bad, corrupt, int(how%2)*400)
	case opSpoof, opSpoofBurst:
		bad, unsure := *p, *p
		bad.badSum = true
		unsure.noSum = true
		w.datagramToServer(f, &bad, corrupt, 0)
		if p.v6 {
			w.datagramToServer(f, p, original, 0)
		} else {
			w.datagramToServer(f, &unsure, original, 0)
		}
	default:
		w.datagramToServer(f, p, original, 0)
	}
}

// datagramIDSize is the frame's number, which a datagram begins with.
const datagramIDSize = 4

// datagramToServer sends a datagram, in fragments of about so many bytes where that
// is not 0 or the link needs it.
func (w *wire) datagramToServer(f *flow, p *packet, k kind, size int) {
	if p.payload < datagramIDSize {
		return
	}
	id := uint32(len(w.frames))
	tag := w.tag(f, id, k)
	w.frames = append(w.frames, frame{flow: f.number, size: int32(p.payload), tag: tag, kind: k})
	fill := func(b []byte) {
		fillContent(b, id, 0)
		binary.LittleEndian.PutUint32(b, id)
	}
	if size == 0 && p.size+p.payload <= serverMTU {
		w.server.queue(p.frame(w.server.slot(), w.server.to, tag, fill))
		return
	}
	if size == 0 || p.payload/size > mostFragments {
		size = fragmentSize
	}
	fill(w.datagram[8 : 8+p.payload])
	all := w.datagram[:p.transport(w.datagram[:])]
	size &^= 7
	pieces := w.pieces[:0]
	for at := 0; at < len(all); at += size {
		pieces = append(pieces, at)
	}
	w.pieces = pieces
	if k == duplicate || f.rng.IntN(4) == 0 {
		f.rng.Shuffle(len(pieces), func(i, j int) { pieces[i], pieces[j] = pieces[j], pieces[i] })
	}
	for _, at := range pieces {
		// The record is that of the first fragment.
		own := tag
		if at != 0 {
			own = uint32(len(w.frames))
			w.frames = append(w.frames, frame{flow: f.number, tag: own, kind: fragment})
		}
		n := p.fragment(w.server.slot(), w.server.to, own, id, all, at, min(size, len(all)-at))
		w.server.queue(n)
	}
}

const (
	fragmentSize  = 1200
	mostFragments = 40
)

// fragment writes the frame of one fragment of a transport header and payload.
func (p *packet) fragment(b []byte, to [6]byte, tag, id uint32, all []byte, at, size int) int {
	const moreFragments = 0x2000
	p.linkHeader(b, to, tag)
	more := at+size < len(all)
	if !p.v6 {
		mark := uint16(at / 8)
		if more {
			mark |= moreFragments
		}
		p.networkHeader(b[etherSize:], size, uint16(id), mark)
		return etherSize + p.l4 + copy(b[etherSize+p.l4:], all[at:at+size])
	}
	const header = 8
	p.networkHeader(b[etherSize:], header+size, 0, 0)
	b[etherSize+6] = unix.IPPROTO_FRAGMENT
	h := b[etherSize+p.l4:]
	h[0], h[1] = unix.IPPROTO_UDP, 0
	mark := uint16(at)
	if more {
		mark |= 1
	}
	binary.BigEndian.PutUint16(h[2:], mark)
	binary.BigEndian.PutUint32(h[4:], id)
	return etherSize + p.l4 + header + copy(h[header:], all[at:at+size])
}

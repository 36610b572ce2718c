// SPDX-License-Identifier: Apache-2.0

package main

// greet hands on the client's SYN, or SYN-ACK, and what the plan has come with it.
func (w *wire) greet(f *flow, p *packet) {
	again := f.haveISN && f.isn == p.seq()
	f.isn, f.haveISN = p.seq(), true
	if !again {
		f.sent = p.next()
		f.loseFirst = 0
	}
	if before(f.sent, p.next()) {
		f.sent = p.next()
	}
	if p.payload > p.mostPayload() {
		first := p.piece(0, p.mostPayload())
		p = &first
	}
	if f.conn.mode == crossed && !f.crossed {
		f.clientSYN = new(packet)
		*f.clientSYN = *p
		w.cross(f)
		return
	}
	// The second time, the connection has had its trouble.
	if again {
		w.open(f, p)
		return
	}
	switch greeting(f.conn.handshake) % greetings {
	case synTwice:
		w.open(f, p)
		w.open(f, p)
	case synCorrupt:
		bad := *p
		bad.badSum = true
		w.toServer(f, &bad, corrupt)
		w.open(f, p)
	case synAborted:
		if p.has(ack) || f.conn.mode == fastOpen {
			w.open(f, p)
			return
		}
		w.toServer(f, p, abortedSYN)
		end := *p
		end.payload = 0
		end.setFlags(rst)
		end.setSeq(p.next())
		w.toServer(f, &end, badReset)
		f.skipACKs = 1
		w.open(f, p)
	case synOld:
		// A SYN-ACK of any number is one, and so is a SYN with a Fast Open cookie.
		if p.has(ack) || f.conn.mode == fastOpen {
			w.open(f, p)
			return
		}
		old := *p
		old.setSeq(p.seq() - 1_000_000)
		w.toServer(f, &old, alienSYN)
		w.open(f, p)
	default:
		w.open(f, p)
	}
}

func (w *wire) open(f *flow, p *packet) {
	id := w.toServer(f, p, anySYN)
	f.opened = append(f.opened, id)
}

// cross lets both SYNs pass when both are there.
func (w *wire) cross(f *flow) {
	if f.clientSYN == nil || f.serverSYN == nil {
		return
	}
	f.crossed = true
	w.toClient(f.serverSYN)
	w.open(f, f.clientSYN)
}

// endGreeting is for what comes from the client first in a connection. It says
// whether that goes on.
func (w *wire) endGreeting(f *flow, p *packet) bool {
	spoof := *p
	switch greeting(f.conn.handshake) % greetings {
	case loseACK:
		f.loseFirst++
		if f.loseFirst <= 2 && p.payload == 0 {
			return false
		}
	case badACK:
		spoof.setAck(p.ack() + farAway)
		w.toServer(f, &spoof, aheadACK)
	case corruptData:
		spoof.badSum, spoof.payload = true, 200
		w.toServer(f, &spoof, corrupt)
	case ackTwice:
		f.ended = append(f.ended, w.toServer(f, &spoof, duplicate))
	}
	f.greeted = true
	f.ended = append(f.ended, uint32(len(w.frames)))
	return true
}

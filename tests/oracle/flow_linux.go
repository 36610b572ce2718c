// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math/rand/v2"
	"time"
)

// A flow is what the wire knows of one TCP connection, or of the datagrams to one
// socket.
type flow struct {
	number int32
	conn   *connection
	rng    *rand.Rand

	clientPort, serverPort uint16

	// Of the client: its initial sequence number, and the highest that it has sent up
	// to.
	isn     uint32
	haveISN bool
	sent    uint32

	// Of the server: what it has acknowledged.
	acked     uint32
	haveAcked bool
	skipACKs  int // SYN-ACKs that are not for the client
	loseACKs  int
	loseFirst int // segments of the client that end the handshake
	greeted   bool

	// The SYNs of both, until both are there (crossed).
	clientSYN, serverSYN *packet
	crossed              bool

	next  int // of ops
	count int // frames of the client
	born  int64

	// told is the highest acknowledgement that went to the client, and progress when
	// that was.
	told     uint32
	progress int64

	merge     packet // what is to go out with the next segment
	mergeLeft int    // how many more may be added
	mergeDue  int64

	groupSize, groupLeft int
	group                uint32

	// data are the numbers of the frames with payload, opened those of the SYNs and
	// SYN-ACKs that the server could take, ended those of the first segments with
	// an ACK.
	data, opened, ended []uint32
}

// offset is where in the stream a sequence number lies.
func (f *flow) offset(seq uint32) int32 { return int32(seq - f.isn - 1) }

func before(a, b uint32) bool { return int32(a-b) < 0 }

// mercy is after how long without progress frames pass: TCP waits ever longer, and
// would do little else.
const mercy = int64(30 * time.Millisecond)

// troubled says whether the wire is to be anything but a good one for now.
func (f *flow) troubled(now int64) bool {
	return f.conn.mode != multipath && now-f.born < f.conn.trouble() &&
		(f.conn.mode.isUDP() || f.conn.untroubled || now-f.progress < mercy)
}

// nextOp returns what becomes of the next frame, and how.
func (f *flow) nextOp(now int64) (op, byte) {
	f.count++
	ops := f.conn.ops
	if len(ops) < 2 || !f.troubled(now) {
		return opPass, 0
	}
	i := f.next % (len(ops) / 2) * 2
	f.next++
	return op(ops[i] % byte(opCount)), ops[i+1]
}

// SPDX-License-Identifier: Apache-2.0

package main

// A kind is why the wire sent a frame to the server.
type kind uint8

const (
	original kind = iota // the client's own, or a piece of it
	duplicate
	collapsed // with bytes that came before, as a retransmission
	injected  // data ahead of the client's: TCP takes it
	stale     // data that the server has
	probe     // keep-alive or window probe
	bare      // a pure ACK that could be the client's
	anySYN    // SYN or SYN-ACK in a handshake
	fragment  // of a datagram, not the first

	// What is from here on TCP, or UDP, never accepts.
	corrupt    // bad checksum
	aheadACK   // acknowledges what was never sent
	ancientACK // acknowledges what is long gone
	oldStamp   // its timestamp is of the past
	outside    // not in the window
	badReset   // RST that does not match
	strangeSYN // SYN where there is a connection
	withoutACK // no ACK flag
	alienSYN   // SYN of another number
	abortedSYN // SYN that a RST followed
	kinds
)

var kindNames = [kinds]string{
	"original", "duplicate", "collapsed", "injected", "stale", "probe", "bare ACK", "SYN", "fragment",
	"bad checksum", "ACK of what was not sent", "ACK of long ago", "old timestamp", "outside the window",
	"RST that does not match", "SYN in a connection", "no ACK flag", "SYN of another number", "SYN that was aborted",
}

func (k kind) String() string { return kindNames[k] }

// never says that the kernel accepts no such frame.
func (k kind) never() bool { return k >= corrupt }

// A frame is what the wire knows of one that it sent to the server. Its number is
// its place in the list of all.
type frame struct {
	flow int32 // number
	off  int32 // in the stream, of the first byte
	size int32
	tag  uint32 // of the first frame of those that share it
	kind kind
}

// tag gives a new frame its tag: that of the one before it where both are of a
// group.
func (w *wire) tag(f *flow, id uint32, k kind) uint32 {
	if k != original && k != duplicate {
		f.groupLeft = 0
		return id
	}
	if f.groupLeft == 0 {
		f.groupLeft = f.groupSize
		f.group = id
	}
	f.groupLeft--
	return f.group
}

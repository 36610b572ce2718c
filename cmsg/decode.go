// SPDX-License-Identifier: Apache-2.0

package cmsg

import (
	"fmt"
	"iter"
)

// A Message is one control message. Data aliases the buffer that it was read
// from, and its capacity ends where it ends.
type Message struct {
	// With int the compiler would no longer keep a Message in registers.
	Level int32 // SOL_SOCKET, IPPROTO_IP, [SOL_BPF], …
	Type  int32 // SCM_TIMESTAMPING, IP_PKTINFO, [SCM_RECORD], …
	Data  []byte
}

// An Iterator walks over control messages. It is a value: a copy goes on from
// where the original was, independently. It must not be used by several
// goroutines at once.
//
// It finds the messages, and stops with an error, exactly where
// ParseSocketControlMessage of golang.org/x/sys/unix does on Linux; unlike that
// function it also gives the messages that precede an error. Bytes at the end
// that are too few for a header are no error and are ignored, by both as by
// CMSG_NXTHDR of cmsg(3).
type Iterator struct {
	oob []byte
	off int
	bad bool
}

// Parse returns an Iterator over the control messages in oob, the first oobn
// bytes of what recvmsg(2) filled:
//
//	it := cmsg.Parse(oob[:oobn])
//	for msg, ok := it.Next(); ok; msg, ok = it.Next() {
//		…
//	}
//	if err := it.Err(); err != nil {
//		…
//	}
//
// oob needs no alignment, and may be empty.
func Parse(oob []byte) Iterator { return Iterator{oob: oob} }

// Next returns the next control message, and false after the last one and on
// malformed input, which [Iterator.Err] tells apart.
func (it *Iterator) Next() (Message, bool) {
	if len(it.oob)-it.off < headerLen {
		return Message{}, false
	}
	b := it.oob[it.off:]
	size := getLen(b)
	if size < uint64(headerLen) || size > uint64(len(b)) {
		it.bad = true
		return Message{}, false
	}
	n := int(size)
	it.off += alignUp(n)
	return Message{Level: getLevel(b), Type: getType(b), Data: b[headerLen:n:n]}, true
}

// Err returns nil, or an error that is [ErrMalformed] if Next ended at a header
// with a length that is shorter than the header or that goes past the end.
func (it *Iterator) Err() error {
	if !it.bad {
		return nil
	}
	return fmt.Errorf("%w: control message at byte %d of %d says it is %d long",
		ErrMalformed, it.off, len(it.oob), getLen(it.oob[it.off:]))
}

// All returns the control messages in oob for use with range. It ends at
// malformed input without a word: use [Parse] where that matters.
func All(oob []byte) iter.Seq[Message] {
	return func(yield func(Message) bool) {
		it := Iterator{oob: oob}
		for msg, ok := it.Next(); ok; msg, ok = it.Next() {
			if !yield(msg) {
				return
			}
		}
	}
}

// Find returns the data of the first control message with this level and type,
// and false if there is none, or none in front of a malformed one.
func Find(oob []byte, level, typ int) ([]byte, bool) {
	it := Iterator{oob: oob}
	for msg, ok := it.Next(); ok; msg, ok = it.Next() {
		if int(msg.Level) == level && int(msg.Type) == typ {
			return msg.Data, true
		}
	}
	return nil, false
}

// SPDX-License-Identifier: Apache-2.0

package cmsg

// A Writer puts control messages into a buffer the way the kernel does when it
// returns from recvmsg(2), put_cmsg() in net/core/scm.c: it cuts the message
// that does not fit and remembers that it did. Who adds messages to what the
// kernel gave, or takes the kernel's place, gives applications the same bytes
// and the same truncation with it.
//
// A Writer is for one goroutine at a time. The zero Writer has no room.
type Writer struct {
	buf       []byte
	off       int
	truncated bool
}

// NewWriter returns a Writer into oob, from its first byte to its length. To
// put messages behind n bytes that are there already, give it oob[n:].
func NewWriter(oob []byte) Writer { return Writer{buf: oob} }

// Put writes a control message. When the rest of the buffer has room for the
// header but not for all data, it writes what fits and a length that says so;
// when there is no room for the header, it writes nothing. Both set
// [Writer.Truncated]. Padding stays as it was in the buffer, and is left out
// when the buffer ends before it. level and typ are cut to 32 bits. data must
// not overlap the buffer.
func (w *Writer) Put(level, typ int, data []byte) {
	rest := w.buf[w.off:]
	if len(rest) < headerLen {
		w.truncated = true
		return
	}
	n := Len(len(data))
	if len(rest) < n {
		w.truncated = true
		n = len(rest)
	}
	putHeader(rest, n, level, typ)
	copy(rest[headerLen:n], data)
	w.off += min(Space(len(data)), len(rest))
}

// Len returns how many bytes of the buffer are in use, msg_controllen after
// recvmsg(2).
func (w *Writer) Len() int { return w.off }

// Truncated reports whether some message was cut or left out, MSG_CTRUNC of
// recvmsg(2).
func (w *Writer) Truncated() bool { return w.truncated }

// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/cmsg"
)

// groState is what a connection knows of the datagrams that the kernel merges.
type groState struct {
	// mode is a Segments.
	mode atomic.Int32
	// splitting says that reads have to look at left.
	splitting atomic.Bool

	// What follows is used by functions that RawConn.Read calls, one at a time:
	// it locks the connection for reading, and looks at the deadline before.

	// left are datagrams that were read and not handed out, nil where none.
	left *aggregates
	// merged is how many datagrams the last aggregate had.
	merged int
}

func (c *UDPConn) splits() bool { return c.gro.splitting.Load() }

func (c *UDPConn) setGRO(s Segments) error {
	on := 1
	switch s {
	case SegmentsOff:
		on = 0
	case SegmentsSplit, SegmentsWhole:
	default:
		return fmt.Errorf("%w: %v", syscall.EINVAL, s)
	}
	if c.sock.raw == nil {
		return syscall.EINVAL
	}
	before := c.gro.mode.Load()
	if s == SegmentsSplit {
		// What the kernel merges is not to reach those who do not split.
		c.gro.mode.Store(int32(s))
		c.gro.splitting.Store(true)
	}
	var err error
	cerr := c.sock.raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_GRO, on)
	})
	if cerr == nil {
		cerr = os.NewSyscallError("setsockopt", err)
	}
	if errors.Is(err, unix.ENOPROTOOPT) {
		cerr = fmt.Errorf("%w: the kernel has no UDP_GRO: needs Linux 5.0: %w", ErrNotSupported, cerr)
		if s == SegmentsOff {
			cerr = nil
		}
	}
	if cerr != nil {
		// Reads find out that there is nothing to split.
		c.gro.mode.Store(before)
		return cerr
	}
	c.gro.mode.Store(int32(s))
	return nil
}

const (
	// maxAggregates is how many a call reads at most. They wait in the
	// connection where the caller has no room for all of their datagrams.
	maxAggregates = 8
	aggregateSize = 1 << 16
	// aggregateOOB has room for all that the kernel gives, IPv6 options included.
	aggregateOOB = 4096
)

// aggregates are merged datagrams as the kernel gave them.
type aggregates struct {
	mmsg
	data [maxAggregates]*[aggregateSize]byte
	// count is how many were read, at the one that is next and off what of it has
	// been handed out.
	count, at, off int

	// What is known of the next one, where opened.
	opened bool
	stride int
	from   *source
	came   came
	// bare is whether those lose control messages that have no room for any:
	// 0 where that is not known, 1 if not, 2 if they do.
	bare int
}

var aggregateSets = sync.Pool{New: func() any {
	a := new(aggregates)
	a.hdrs = make([]mmsghdr, maxAggregates)
	a.names = make([]unix.RawSockaddrInet6, maxAggregates)
	a.iovs = make([]unix.Iovec, maxAggregates)
	a.oob = resident(maxAggregates * aggregateOOB)
	return a
}}

// read reads up to n aggregates.
func (a *aggregates) read(fd uintptr, n, flags int) syscall.Errno {
	a.hdrs, a.flags = a.hdrs[:n], flags
	a.iov, a.cut = 0, 0
	for i := range n {
		if a.data[i] == nil {
			a.data[i] = new([aggregateSize]byte)
		}
		a.source(i)
		a.buffer(i, a.data[i][:])
		a.control(i, a.private(aggregateOOB))
	}
	a.call(unix.SYS_RECVMMSG, fd)
	a.count, a.at, a.off, a.opened = a.n, 0, 0, false
	return a.errno
}

// release gives the buffers back.
func (a *aggregates) release() {
	a.came = came{}
	a.from = nil
	aggregateSets.Put(a)
}

// open looks at the next aggregate.
func (a *aggregates) open(c *UDPConn, asked *asked) {
	a.came.asked = asked
	if a.opened {
		return
	}
	got := a.got(a.at)
	a.opened, a.bare = true, 0
	a.stride = segmentSize(got)
	a.from = c.batch.sources.from(&a.mmsg, a.at)
	a.came = came{md: &a.md, asked: asked, noSize: true}
	if c.sock.err == nil {
		a.came.arrival = c.arrival(got, int(a.hdrs[a.at].hdr.Flags))
	}
	c.gro.merged = 1
	if size := a.size(); a.stride > 0 && size > a.stride {
		c.gro.merged = (size + a.stride - 1) / a.stride
	}
}

// translate is UDPConn.translate. Most callers have no room for control messages,
// and it is done once for them.
func (a *aggregates) translate(c *UDPConn, oob []byte) (nn int, truncated bool) {
	if len(oob) > 0 || c.wantCmsg.Load() {
		return c.translate(oob, a.got(a.at), &a.came)
	}
	if a.bare == 0 {
		a.bare = 1
		if _, truncated := c.translate(nil, a.got(a.at), &a.came); truncated {
			a.bare = 2
		}
	}
	return 0, a.bare == 2
}

func (a *aggregates) size() int { return int(a.hdrs[a.at].len) }

// payload returns the next datagram.
func (a *aggregates) payload() []byte {
	rest := a.data[a.at][a.off:a.size()]
	if a.stride > 0 && len(rest) > a.stride {
		return rest[:a.stride]
	}
	return rest
}

// next goes on behind a datagram of n bytes, and returns false behind the last.
func (a *aggregates) next(n int) bool {
	a.off += n
	if a.off < a.size() {
		return true
	}
	a.at, a.off, a.opened = a.at+1, 0, false
	return a.at < a.count
}

// A segmentRead is one call that reads single datagrams. They are used again, as
// RawConn's functions let everything escape.
type segmentRead struct {
	c     *UDPConn
	flags int
	// batch and msgs are where to, one of them.
	batch []ipv4.Message
	msgs  []Message
	// metadata says that the records are wanted.
	metadata bool
	one      [1]Message
	asked    asked

	n     int
	errno syscall.Errno
	// over says that there is nothing to split any more.
	over bool
	run  func(fd uintptr) (done bool)
}

var segmentReads = sync.Pool{New: func() any {
	r := new(segmentRead)
	r.run = r.read
	return r
}}

func (r *segmentRead) read(fd uintptr) (done bool) {
	g := &r.c.gro
	want := len(r.batch) + len(r.msgs)
	if g.left == nil {
		if Segments(g.mode.Load()) != SegmentsSplit {
			g.splitting.Store(false)
			r.over = true
			return true
		}
		// As many as it takes if they are like the last one.
		merged := max(1, g.merged)
		n := min(maxAggregates, max(1, (want+merged-1)/merged))
		a := aggregateSets.Get().(*aggregates)
		if r.errno = a.read(fd, n, r.flags&^(unix.MSG_PEEK|unix.MSG_TRUNC)); r.errno != 0 {
			a.release()
			return r.errno != unix.EAGAIN || r.flags&unix.MSG_DONTWAIT != 0
		}
		g.left = a
	}
	r.errno = 0
	a := g.left
	var last arrival
	for more := true; more && r.n < want; r.n++ {
		a.open(r.c, &r.asked)
		last = a.came.arrival
		n := r.put(a)
		if r.flags&unix.MSG_PEEK != 0 {
			r.n++
			break
		}
		more = a.next(n)
		if !more {
			g.left = nil
		}
	}
	r.c.remember(last)
	if g.left == nil {
		a.release()
	}
	return true
}

// put copies the next datagram to where it goes, and returns its size.
func (r *segmentRead) put(a *aggregates) int {
	c, b := r.c, a.payload()
	flags := a.came.callersFlags(int(a.hdrs[a.at].hdr.Flags), aggregateOOB-len(a.got(a.at)))
	if r.batch != nil {
		m := &r.batch[r.n]
		m.N = 0
		for _, to := range m.Buffers {
			m.N += copy(to, b[m.N:])
		}
		m.Addr = nil
		if a.from != nil {
			m.Addr = a.from.udp
		}
		var truncated bool
		m.NN, truncated = a.translate(c, m.OOB)
		m.Flags, m.N = r.cut(flags, truncated, m.N, len(b))
		return len(b)
	}
	m := &r.msgs[r.n]
	m.N = copy(m.Buf, b)
	m.Addr = a.from.addrPort()
	m.SegmentSize = 0
	m.Err = nil
	if r.metadata {
		if m.Err = c.fetch(&a.came); m.Err == nil {
			m.Metadata.Record().Set(a.md.Record())
		} else {
			m.Metadata.Reset()
		}
	}
	a.came.noRecord = r.metadata && len(m.OOB) == 0
	var truncated bool
	m.NN, truncated = a.translate(c, m.OOB)
	m.Flags, m.N = r.cut(flags, truncated, m.N, len(b))
	return len(b)
}

// cut returns the flags and the length of a datagram of size bytes of which n were
// copied, as the kernel does.
func (r *segmentRead) cut(flags int, control bool, n, size int) (int, int) {
	if control {
		flags |= unix.MSG_CTRUNC
	}
	if n < size {
		flags |= unix.MSG_TRUNC
		if r.flags&unix.MSG_TRUNC != 0 {
			n = size
		}
	}
	return flags, n
}

// do reads, and returns false where there is nothing to split any more.
func (r *segmentRead) do(c *UDPConn, flags int) (ok bool, err error) {
	r.c, r.flags, r.n, r.over, r.asked = c, flags, 0, false, asked{}
	err = c.sock.raw.Read(r.run)
	return !r.over, err
}

func (r *segmentRead) release() {
	r.c, r.batch, r.msgs = nil, nil, nil
	r.one[0].Buf, r.one[0].OOB = nil, nil
	segmentReads.Put(r)
}

// splitBatch is ReadBatch and ReadBatchMetadata for datagrams that were merged.
func (c *UDPConn) splitBatch(batch []ipv4.Message, msgs []Message, flags int) (n int, ok bool, err error) {
	r := segmentReads.Get().(*segmentRead)
	defer r.release()
	r.batch, r.msgs, r.metadata = batch, msgs, batch == nil
	ok, err = r.do(c, flags)
	if err == nil && r.errno != 0 {
		err = os.NewSyscallError("recvmmsg", r.errno)
	}
	if err != nil {
		return 0, true, c.batchError("read", err)
	}
	return r.n, ok, nil
}

// readSegment reads one datagram where the kernel merges them; ok is false where it
// does not any more. md is nil where nobody wants the record. call is what net would
// have called.
func (c *UDPConn) readSegment(call string, b, oob []byte, md *cmsg.Metadata) (s segment, ok bool, err error) {
	r := segmentReads.Get().(*segmentRead)
	defer r.release()
	m := &r.one[0]
	m.Buf, m.OOB = b, oob
	r.msgs, r.metadata = r.one[:], md != nil
	ok, err = r.do(c, 0)
	if op, is := err.(*net.OpError); is {
		// RawConn's; it was made for this error.
		op.Op = "read"
		return segment{}, true, op
	}
	if err == nil && r.errno != 0 {
		local := c.udp.LocalAddr()
		err = &net.OpError{Op: "read", Net: local.Network(), Source: local, Addr: c.udp.RemoteAddr(), Err: os.NewSyscallError(call, r.errno)}
	}
	if err != nil || !ok {
		return segment{}, ok, err
	}
	if md != nil && m.Err == nil {
		md.Record().Set(m.Metadata.Record())
	}
	return segment{m.N, m.NN, m.Flags, m.Addr, m.Err}, true, nil
}

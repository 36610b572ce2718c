// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// maxAggregates is how many a call reads at most. They wait in the
	// connection if the caller has no room for all of their datagrams.
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

	// What is known of the next one, if opened.
	opened bool
	stride int
	from   *source
	came   came
	bare   bare
}

// bare is what recvmsg's flags are for callers without room for control messages.
type bare struct {
	known bool
	flags int
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

// look looks at the next aggregate. socket is for the datagrams of this call.
func (a *aggregates) look(c *UDPConn, socket *tsFlags) {
	a.came.socket = socket
	if a.opened {
		return
	}
	got := a.got(a.at)
	a.opened, a.bare = true, bare{}
	a.stride = segmentSize(got)
	a.from = c.batch.sources.from(&a.mmsg, a.at)
	flags := int(a.hdrs[a.at].hdr.Flags)
	a.came = came{got: got, left: aggregateOOB - len(got), flags: flags, md: &a.md, socket: socket, noSize: true}
	a.came.arrival = c.carrier.locate(got, flags)
	c.gro.merged = 1
	if size := a.size(); a.stride > 0 && size > a.stride {
		c.gro.merged = (size + a.stride - 1) / a.stride
	}
}

// open is UDPConn.open. Most callers have no room for control messages, and it is done
// once for them.
func (a *aggregates) open(c *UDPConn, oob []byte) (nn, flags int) {
	if len(oob) > 0 || c.wantCmsg.Load() {
		return c.open(&a.came, oob)
	}
	if !a.bare.known {
		_, flags := c.open(&a.came, nil)
		a.bare = bare{known: true, flags: flags}
	}
	return 0, a.bare.flags
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

// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/cmsg"
)

// readBatch is read for many.
func (c *UDPConn) readBatch(ms batch, flags int) (int, error) {
	if c.splits() && flags&unix.MSG_ERRQUEUE == 0 {
		return c.readSegments(ms, flags)
	}
	return c.readDatagrams(ms, flags)
}

// readSegment is read for datagrams that were merged.
func (c *UDPConn) readSegment(call call, b, oob []byte, md *cmsg.Metadata) (n, oobn, flags int, addr netip.AddrPort, err error) {
	p := splittings.Get().(*splitting)
	defer p.release()
	m := &p.one[0]
	m.Buf, m.OOB = b, oob
	err = p.do(c, batch{meta: p.one[:]}, md != nil, 0)
	if op, is := err.(*net.OpError); is {
		// RawConn's; it was made for this error.
		op.Op = "read"
	}
	if err == nil && p.errno != 0 {
		local := c.udp.LocalAddr()
		err = &net.OpError{Op: "read", Net: local.Network(), Source: local, Addr: c.udp.RemoteAddr(), Err: os.NewSyscallError(call.String(), p.errno)}
	}
	switch {
	case err != nil && call == callRecvmsg:
		return 0, 0, 0, c.unspecified(), err
	case err != nil:
		return 0, 0, 0, netip.AddrPort{}, err
	case p.over:
		return c.read(call, b, oob, md)
	case md != nil && m.Err == nil:
		md.Record().Set(m.Metadata.Record())
	}
	return m.N, m.NN, m.Flags, m.Addr, m.Err
}

// readSegments is readDatagrams for datagrams that were merged.
func (c *UDPConn) readSegments(ms batch, flags int) (int, error) {
	p := splittings.Get().(*splitting)
	defer p.release()
	err := p.do(c, ms, ms.meta != nil, flags)
	if err == nil && p.errno != 0 {
		err = os.NewSyscallError("recvmmsg", p.errno)
	}
	if err != nil {
		return 0, c.batchError("read", err)
	}
	if p.over {
		return c.readDatagrams(ms, flags)
	}
	return p.n, nil
}

// unspecified is the address that net.UDPConn.ReadMsgUDPAddrPort returns with an
// error.
func (c *UDPConn) unspecified() netip.AddrPort {
	if local, ok := c.udp.LocalAddr().(*net.UDPAddr); ok && len(local.IP) == net.IPv4len {
		return netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
}

// A splitting is one call that reads single datagrams. Splittings are used again, as
// RawConn's functions let everything escape.
type splitting struct {
	conn  *UDPConn
	flags int
	ms    batch
	// wanted says that the caller wants the metadata.
	wanted bool
	socket tsFlags
	// one is for those who read one datagram.
	one [1]Message

	n     int
	errno syscall.Errno
	// over says that there is nothing to split any more.
	over bool
	run  func(fd uintptr) (done bool)
}

var splittings = sync.Pool{New: func() any {
	p := new(splitting)
	p.run = p.read
	return p
}}

// do reads for ms.
func (p *splitting) do(c *UDPConn, ms batch, wanted bool, flags int) error {
	p.conn, p.ms, p.wanted, p.flags = c, ms, wanted, flags
	p.n, p.errno, p.over, p.socket = 0, 0, false, tsFlags{}
	return c.sock.raw.Read(p.run)
}

// release forgets the caller's buffers.
func (p *splitting) release() {
	p.conn, p.ms = nil, batch{}
	p.one[0].Buf, p.one[0].OOB, p.one[0].Err = nil, nil, nil
	splittings.Put(p)
}

func (p *splitting) read(fd uintptr) (done bool) {
	g := &p.conn.gro
	want := p.ms.len()
	if g.left == nil {
		if Segments(g.mode.Load()) != SegmentsSplit {
			g.splitting.Store(false)
			p.over = true
			return true
		}
		// As many as it takes if they are like the last one.
		merged := max(1, g.merged)
		n := min(maxAggregates, max(1, (want+merged-1)/merged))
		a := aggregateSets.Get().(*aggregates)
		if p.errno = a.read(fd, n, p.flags&^(unix.MSG_PEEK|unix.MSG_TRUNC)); p.errno != 0 {
			a.release()
			return p.errno != unix.EAGAIN || p.flags&unix.MSG_DONTWAIT != 0
		}
		g.left = a
	}
	p.errno = 0
	a := g.left
	var last arrival
	for more := true; more && p.n < want; p.n++ {
		a.look(p.conn, &p.socket)
		last = a.came.arrival
		n := p.put(a)
		if p.flags&unix.MSG_PEEK != 0 {
			p.n++
			break
		}
		more = a.next(n)
		if !more {
			g.left = nil
		}
	}
	p.conn.carrier.remember(&last)
	if g.left == nil {
		a.release()
	}
	return true
}

// put copies the next datagram to where it goes, and returns its size.
func (p *splitting) put(a *aggregates) int {
	b := a.payload()
	n := p.ms.fill(p.n, b)
	oob := p.ms.oob(p.n)
	if p.ms.meta != nil {
		p.record(a, &p.ms.meta[p.n])
	}
	a.came.noRecord = p.wanted && len(oob) == 0
	nn, flags := a.open(p.conn, oob)
	if n < len(b) {
		// As the kernel does.
		flags |= unix.MSG_TRUNC
		if p.flags&unix.MSG_TRUNC != 0 {
			n = len(b)
		}
	}
	p.ms.set(p.n, n, nn, flags, a.from)
	return len(b)
}

// record gives a message the record of the whole if the caller wants it.
func (p *splitting) record(a *aggregates, m *Message) {
	m.SegmentSize, m.Err = 0, nil
	if !p.wanted {
		return
	}
	if m.Err = p.conn.fetch(&a.came); m.Err == nil {
		m.Metadata.Record().Set(a.md.Record())
	} else {
		m.Metadata.Reset()
	}
}

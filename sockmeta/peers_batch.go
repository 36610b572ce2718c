// SPDX-License-Identifier: Apache-2.0

package sockmeta

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"golang.org/x/net/ipv4"
)

// A batch is what calls need whose callers have no place for metadata. They are used
// again.
type batch struct {
	ms  []Message
	oob [packetInfoSpace]byte
}

var batches = sync.Pool{New: func() any { return new(batch) }}

// takeBatch returns a batch of n messages without buffers.
func takeBatch(n int) *batch {
	b := batches.Get().(*batch)
	if cap(b.ms) < n {
		b.ms = make([]Message, n)
	}
	b.ms = b.ms[:n]
	return b
}

// release must not keep what callers own from being collected.
func (b *batch) release() {
	for i := range b.ms {
		b.ms[i].Buf, b.ms[i].OOB = nil, nil
	}
	batches.Put(b)
}

// ReadBatchMetadata is UDPConn.ReadBatchMetadata.
func (c *PeerConn) ReadBatchMetadata(ms []Message, flags int) (n int, err error) {
	if !c.ok() {
		return 0, syscall.EINVAL
	}
	n, err = c.UDPConn.ReadBatchMetadata(ms, flags)
	for i := range n {
		c.peers.remember(ms[i].Addr, &ms[i].Metadata, ms[i].Err)
	}
	return n, err
}

// ReadBatch is UDPConn.ReadBatch. Messages with several buffers cost an allocation
// and a copy.
func (c *PeerConn) ReadBatch(ms []ipv4.Message, flags int) (n int, err error) {
	if !c.ok() {
		return 0, syscall.EINVAL
	}
	batch := takeBatch(len(ms))
	defer batch.release()
	own := batch.ms
	for i := range ms {
		own[i].Buf, own[i].OOB = joined(ms[i].Buffers), ms[i].OOB
	}
	n, err = c.UDPConn.ReadBatchMetadata(own, flags)
	for i := range n {
		m := &own[i]
		if len(ms[i].Buffers) > 1 {
			scatter(ms[i].Buffers, m.Buf[:m.N])
		}
		ms[i].N, ms[i].NN, ms[i].Flags, ms[i].Addr = m.N, m.NN, m.Flags, nil
		if addr := c.peers.remember(m.Addr, &m.Metadata, m.Err); addr != nil {
			ms[i].Addr = addr
		}
	}
	return n, err
}

// joined returns a buffer that has the length of all of them.
func joined(buffers [][]byte) []byte {
	switch len(buffers) {
	case 0:
		return nil
	case 1:
		return buffers[0]
	}
	n := 0
	for _, b := range buffers {
		n += len(b)
	}
	return make([]byte, n)
}

func scatter(buffers [][]byte, b []byte) {
	for _, to := range buffers {
		b = b[copy(to, b):]
	}
}

// ReadMsgUDP is UDPConn.ReadMsgUDP.
func (c *PeerConn) ReadMsgUDP(b, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error) {
	n, oobn, flags, from, err := c.ReadMsgUDPAddrPort(b, oob)
	if from.IsValid() {
		addr = net.UDPAddrFromAddrPort(from)
	}
	return n, oobn, flags, addr, err
}

// ReadMsgUDPAddrPort is UDPConn.ReadMsgUDPAddrPort.
func (c *PeerConn) ReadMsgUDPAddrPort(b, oob []byte) (n, oobn, flags int, addr netip.AddrPort, err error) {
	if !c.ok() {
		return 0, 0, 0, netip.AddrPort{}, syscall.EINVAL
	}
	batch := takeBatch(1)
	defer batch.release()
	m := &batch.ms[0]
	m.Buf, m.OOB = b, oob
	if _, err := c.ReadBatchMetadata(batch.ms, 0); err != nil {
		return 0, 0, 0, netip.AddrPort{}, asRead(c.UDPConn, "recvmsg", err)
	}
	return m.N, m.NN, m.Flags, m.Addr, nil
}

// asRead gives an error of c's batches the form that net gives it: call is the system
// call of the method.
func asRead(c *UDPConn, call string, err error) error {
	op := &net.OpError{Op: "read", Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
	// What comes from a deadline or from Close is wrapped once more, by RawConn.
	for inner, ok := err.(*net.OpError); ok; inner, ok = inner.Err.(*net.OpError) {
		op.Net, op.Err = inner.Net, inner.Err
	}
	if s, ok := op.Err.(*os.SyscallError); ok {
		op.Err = os.NewSyscallError(call, s.Err)
	}
	return op
}

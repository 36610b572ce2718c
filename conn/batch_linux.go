// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"encoding/binary"
	"net"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/cmsg"
)

// batchState is what batches need of a connection.
type batchState struct{ sources sources }

// batchOOB is plainOOB with room for SO_RXQ_OVFL, SO_RCVMARK, SO_RCVPRIORITY and
// UDP_GRO, which the kernel puts in this order.
const batchOOB = plainOOB + 64

// batchError gives an error the form that golang.org/x/net gives it.
func (c *UDPConn) batchError(op string, err error) error {
	local := c.udp.LocalAddr()
	return &net.OpError{Op: op, Net: local.Network(), Source: local, Err: err}
}

func (c *UDPConn) readBatch(ms []ipv4.Message, flags int) (int, error) {
	if c.splits() && flags&unix.MSG_ERRQUEUE == 0 {
		if n, ok, err := c.splitBatch(ms, nil, flags); ok {
			return n, err
		}
	}
	// A plain socket's control messages are the caller's alone.
	plain := c.sock.err != nil
	own := ownOOB + c.recordOOB()
	iovs, oob := 0, 0
	for i := range ms {
		iovs += len(ms[i].Buffers)
		oob += len(ms[i].OOB) + own
	}
	if plain {
		oob = 0
	}
	m := newMmsg(len(ms), iovs, oob)
	defer m.release()
	for i := range ms {
		m.source(i)
		m.buffers(i, ms[i].Buffers)
		if plain {
			m.control(i, ms[i].OOB)
		} else {
			m.control(i, m.private(len(ms[i].OOB)+own))
		}
	}
	n, err := m.recvmmsg(c.sock.raw, flags)
	if err != nil {
		return 0, c.batchError("read", err)
	}
	for i := range n {
		h := &m.hdrs[i]
		ms[i].N, ms[i].Flags = int(h.len), int(h.hdr.Flags)
		ms[i].Addr = nil
		if from := c.batch.sources.from(m, i); from != nil {
			ms[i].Addr = from.udp
		}
	}
	if plain {
		for i := range n {
			ms[i].NN = int(m.hdrs[i].hdr.Controllen)
		}
		return n, nil
	}
	c.touch(m, n)
	for i := range n {
		r := came{arrival: m.arrivals[i], md: &m.md, asked: &m.asked}
		got := m.got(i)
		nn, truncated := c.translate(ms[i].OOB, got, &r)
		ms[i].NN, ms[i].Flags = nn, r.callersFlags(ms[i].Flags, len(ms[i].OOB)+own-len(got))
		if truncated {
			ms[i].Flags |= msgCtrunc
		}
	}
	return n, nil
}

// touch finds what stands for the records of what was read, and touches their slots.
func (c *UDPConn) touch(m *mmsg, n int) {
	slots := c.sock.slots
	for i := range n {
		a := c.arrival(m.got(i), int(m.hdrs[i].hdr.Flags))
		m.arrivals[i] = a
		if slots != nil {
			slots.Touch(a.handle)
		}
	}
	c.remember(m.arrivals[n-1])
}

func (c *UDPConn) readBatchMetadata(ms []Message, flags int) (int, error) {
	if c.splits() && flags&unix.MSG_ERRQUEUE == 0 {
		if n, ok, err := c.splitBatch(nil, ms, flags); ok {
			return n, err
		}
	}
	own := batchOOB + c.recordOOB()
	oob := 0
	for i := range ms {
		oob += len(ms[i].OOB) + own
	}
	m := newMmsg(len(ms), len(ms), oob)
	defer m.release()
	for i := range ms {
		m.source(i)
		m.buffer(i, ms[i].Buf)
		m.control(i, m.private(len(ms[i].OOB)+own))
	}
	n, err := m.recvmmsg(c.sock.raw, flags)
	if err != nil {
		return 0, c.batchError("read", err)
	}
	c.touch(m, n)
	for i := range n {
		h, msg := &m.hdrs[i], &ms[i]
		got := m.got(i)
		msg.N, msg.Flags = int(h.len), m.arrivals[i].callersFlags(int(h.hdr.Flags), len(msg.OOB)+own-len(got))
		msg.Addr = c.batch.sources.from(m, i).addrPort()
		c.deliver(msg, got, m.arrivals[i], &m.asked)
	}
	return n, nil
}

// deliver fills in what came besides the payload: got are the control messages.
func (c *UDPConn) deliver(msg *Message, got []byte, a arrival, asked *asked) {
	alone := len(msg.OOB) == 0
	r := came{arrival: a, md: &msg.Metadata, asked: asked, noRecord: alone, noSize: alone}
	msg.Err = c.fetch(&r)
	msg.NN, msg.SegmentSize = 0, 0
	if len(got) == 0 {
		return
	}
	if len(got) == ownSpace && a.handle != 0 && msg.Err == nil && r.tsflags == 0 && alone {
		return
	}
	msg.SegmentSize = segmentSize(got)
	nn, truncated := c.translate(msg.OOB, got, &r)
	msg.NN = nn
	if truncated {
		msg.Flags |= msgCtrunc
	}
}

// ownSpace is the size of the control message with the handle.
var ownSpace = cmsg.Space(timestampingLen)

// segmentSize returns the size of the segments that GRO has merged, 0 where it has
// not.
func segmentSize(got []byte) int {
	data, ok := cmsg.Find(got, unix.SOL_UDP, unix.UDP_GRO)
	if !ok || len(data) < 4 {
		return 0
	}
	return int(int32(binary.NativeEndian.Uint32(data)))
}

// none is the metadata of those who give none.
var none cmsg.Metadata

func (c *UDPConn) writeBatch(ms []ipv4.Message, flags int) (int, error) {
	iovs, oob, records := 0, 0, false
	for i := range ms {
		iovs += len(ms[i].Buffers)
		if len(ms[i].OOB) > 0 && hasRecord(ms[i].OOB) {
			oob += len(ms[i].OOB) + sendOOB
			records = true
		}
	}
	m := newMmsg(len(ms), iovs, oob)
	defer m.release()
	if records {
		m.sending()
	}
	for i := range ms {
		m.destinationAddr(i, ms[i].Addr)
		m.buffers(i, ms[i].Buffers)
		if !records {
			m.control(i, ms[i].OOB)
		} else if !c.encode(m, i, ms[i].OOB, &none, 0) {
			break
		}
	}
	n, err := m.sendmmsg(c.sock.raw, flags)
	c.releaseSlots(m)
	if err != nil {
		return 0, c.batchError("write", err)
	}
	for i := range n {
		ms[i].N, ms[i].NN, ms[i].Flags = int(m.hdrs[i].len), len(ms[i].OOB), 0
		if err == nil && records {
			err = m.errs[i]
		}
	}
	return n, err
}

func (c *UDPConn) writeBatchMetadata(ms []Message, flags int) (int, error) {
	oob := 0
	for i := range ms {
		oob += len(ms[i].OOB) + sendOOB
	}
	m := newMmsg(len(ms), len(ms), oob)
	defer m.release()
	m.sending()
	for i := range ms {
		msg := &ms[i]
		m.destinationPort(i, msg.Addr)
		m.buffer(i, msg.Buf)
		segment := msg.SegmentSize
		if segment >= len(msg.Buf) {
			segment = 0
		}
		if !c.encode(m, i, msg.OOB, &msg.Metadata, segment) {
			break
		}
	}
	n, err := m.sendmmsg(c.sock.raw, flags)
	c.releaseSlots(m)
	if err != nil {
		return 0, c.batchError("write", err)
	}
	for i := range n {
		ms[i].N, ms[i].NN, ms[i].Err = int(m.hdrs[i].len), len(ms[i].OOB), m.errs[i]
	}
	return n, nil
}

// sendOOB is the room for sockmeta's own control messages of a datagram that is
// sent: SCM_TXTIME, UDP_SEGMENT, and padding.
const sendOOB = txtimeSpace + cmsg.HeaderLen + oobAlign + oobAlign

// sending makes room for what encode keeps of each message.
func (m *mmsg) sending() {
	n := len(m.hdrs)
	if cap(m.slots) < n {
		m.slots, m.errs = make([]int, n), make([]error, n)
	}
	m.slots, m.errs = m.slots[:n], m.errs[:n]
	for i := range m.slots {
		m.slots[i] = -1
	}
}

// encode adds the control messages of message i: the caller's, the number of the
// slot with its metadata, the size of its segments where that is not 0. It returns
// false, and ends the batch before it, where there is no slot for it.
func (c *UDPConn) encode(m *mmsg, i int, oob []byte, md *cmsg.Metadata, segment int) bool {
	record := len(oob) > 0 && hasRecord(oob)
	if md.IsEmpty() && !record && segment <= 0 {
		m.control(i, oob)
		return true
	}
	buf := m.private(len(oob) + sendOOB)[:0]
	if segment > 0 {
		var size [2]byte
		binary.NativeEndian.PutUint16(size[:], uint16(segment))
		buf = cmsg.Append(buf, unix.SOL_UDP, unix.UDP_SEGMENT, size[:])
	}
	if md.IsEmpty() && !record || isMalformed(oob) {
		// The kernel is to say what is wrong with it.
		m.control(i, append(buf, oob...))
		return true
	}
	var launch []byte
	var bad error
	if len(oob) > 0 {
		m.md = *md
		md = &m.md
		buf, launch, bad = takeRecord(buf, oob, md)
	}
	tx := c.transmitter()
	if bad = c.unsendable(tx, md, bad); bad == nil && !md.IsEmpty() {
		if slot, ok := tx.slots.Take(); ok {
			m.slots[i], m.errs[i] = slot, c.refused(tx, md)
			m.control(i, c.renewed(tx, slot).fill(slot, buf, md))
			return true
		}
		if i > 0 {
			m.hdrs = m.hdrs[:i]
			return false
		}
		bad = c.errOverrun
	}
	m.errs[i] = bad
	m.control(i, appendTxtime(buf, launch))
	return true
}

// releaseSlots gives the transmit slots of a batch back.
func (c *UDPConn) releaseSlots(m *mmsg) {
	for _, slot := range m.slots {
		if slot >= 0 {
			c.tx.Load().slots.Release(slot)
		}
	}
	m.slots = m.slots[:0]
}

func isMalformed(oob []byte) bool {
	it := cmsg.Parse(oob)
	for _, ok := it.Next(); ok; _, ok = it.Next() {
	}
	return it.Err() != nil
}

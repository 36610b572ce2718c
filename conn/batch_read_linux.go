// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"net"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// batchState is what batches need of a connection.
type batchState struct{ sources sources }

// batchError gives an error the form that golang.org/x/net gives it.
func (c *UDPConn) batchError(op string, err error) error {
	local := c.udp.LocalAddr()
	return &net.OpError{Op: op, Net: local.Network(), Source: local, Err: err}
}

// readDatagrams reads what the kernel gives.
func (c *UDPConn) readDatagrams(ms batch, flags int) (int, error) {
	own := ms.room(c.room)
	m := ms.receive(own)
	defer m.release()
	n, err := m.recvmmsg(c.sock.raw, flags)
	if err != nil {
		return 0, c.batchError("read", err)
	}
	if own > 0 {
		c.locate(m, n)
	}
	for i := range n {
		if ms.meta != nil {
			c.takeMeta(m, i, &ms.meta[i], own)
		} else {
			c.takePlain(m, i, &ms.plain[i], own)
		}
	}
	return n, nil
}

// room is how many bytes the buffers for control messages have besides the caller's.
func (ms batch) room(carriers int) int {
	if ms.meta != nil {
		return sizedRoom(carriers)
	}
	return carriers
}

// receive makes the messages that the kernel is to fill. own is ms.room's.
func (ms batch) receive(own int) *mmsg {
	iovs, oob := len(ms.meta), 0
	for i := range ms.plain {
		iovs += len(ms.plain[i].Buffers)
	}
	if own > 0 {
		for i := range ms.len() {
			oob += len(ms.oob(i)) + own
		}
	}
	m := newMmsg(ms.len(), iovs, oob)
	for i := range ms.len() {
		m.source(i)
		if ms.meta != nil {
			m.buffer(i, ms.meta[i].Buf)
		} else {
			m.buffers(i, ms.plain[i].Buffers)
		}
		if own > 0 {
			m.control(i, m.private(len(ms.oob(i))+own))
		} else {
			m.control(i, ms.oob(i))
		}
	}
	return m
}

// locate finds the records of what was read, before the first is fetched. Messages of the
// error queue have none: no program of the socket's has seen them come, and their senders
// can make up times.
func (c *UDPConn) locate(m *mmsg, n int) {
	last := -1
	for i := range n {
		flags := int(m.hdrs[i].hdr.Flags)
		if flags&unix.MSG_ERRQUEUE != 0 {
			m.arrivals[i] = arrival{}
			continue
		}
		m.arrivals[i] = c.carrier.locate(m.got(i), flags)
		last = i
	}
	c.carrier.prefetch(m.arrivals[:n])
	if last >= 0 {
		c.carrier.remember(&m.arrivals[last])
	}
}

// takePlain fills in message i as ReadBatch does.
func (c *UDPConn) takePlain(m *mmsg, i int, msg *ipv4.Message, own int) {
	h, got := &m.hdrs[i], m.got(i)
	msg.N, msg.NN, msg.Flags = int(h.len), len(got), int(h.hdr.Flags)
	msg.Addr = c.batch.sources.from(m, i).udpAddr()
	if own == 0 {
		return
	}
	x := came{arrival: m.arrivals[i], got: got, left: len(msg.OOB) + own - len(got), flags: msg.Flags, md: &m.md, socket: &m.socket}
	msg.NN, msg.Flags = c.open(&x, msg.OOB)
}

// takeMeta fills in message i as ReadBatchMetadata does.
func (c *UDPConn) takeMeta(m *mmsg, i int, msg *Message, own int) {
	h, got := &m.hdrs[i], m.got(i)
	alone := len(msg.OOB) == 0
	x := came{arrival: m.arrivals[i], got: got, left: len(msg.OOB) + own - len(got), flags: int(h.hdr.Flags),
		md: &msg.Metadata, socket: &m.socket, wanted: true, noRecord: alone, noSize: alone}
	msg.N = int(h.len)
	msg.NN, msg.Flags = c.open(&x, msg.OOB)
	msg.Addr = c.batch.sources.from(m, i).addrPort()
	msg.Err = x.err
	if msg.SegmentSize = 0; !x.isAll(got) {
		msg.SegmentSize = segmentSize(got)
	}
}

// fill copies a datagram to the buffers of message i, and returns how much they took.
func (ms batch) fill(i int, b []byte) (n int) {
	if ms.meta != nil {
		return copy(ms.meta[i].Buf, b)
	}
	for _, to := range ms.plain[i].Buffers {
		n += copy(to, b[n:])
	}
	return n
}

// set fills in what recvmsg returns of message i.
func (ms batch) set(i, n, nn, flags int, from *source) {
	if ms.meta != nil {
		m := &ms.meta[i]
		m.N, m.NN, m.Flags, m.Addr = n, nn, flags, from.addrPort()
		return
	}
	m := &ms.plain[i]
	m.N, m.NN, m.Flags, m.Addr = n, nn, flags, from.udpAddr()
}

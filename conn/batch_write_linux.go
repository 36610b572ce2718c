// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"encoding/binary"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/cmsg"
)

// empty is the metadata of those who give none.
var empty cmsg.Metadata

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
		} else if !c.encode(m, i, ms[i].OOB, &empty, 0) {
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

// SPDX-License-Identifier: Apache-2.0

package cmsg

import (
	"encoding/binary"
	"time"

	"github.com/sockmeta/sockmeta-go/internal/abi"
)

// Metadata is what is known about one packet, or about the segment that brought
// some bytes of a TCP stream: the record, struct sockmeta_record in
// bpf/include/sockmeta_abi.h, with the area that XDP programs wrote.
//
// It is a value of 320 bytes that holds everything inline. The zero Metadata is
// empty and ready for use; a copy is complete and can be kept; one Metadata can
// be read into again and again. Slices that its methods return alias it: they
// change with the next read into it, and do not follow a copy.
//
// Many goroutines may read a Metadata at once as long as none changes it.
type Metadata struct {
	rec abi.Record
}

// Reset empties m.
func (m *Metadata) Reset() { *m = Metadata{} }

func (m *Metadata) has(bit uint16) bool { return m.rec.Valid&bit != 0 }

// Timestamp returns when the kernel received the packet, by CLOCK_REALTIME, in
// nanoseconds, and false if it was not taken. It has no monotonic reading. The kernel
// takes it while any socket of the host asks for times (net_enable_timestamp in
// net/core/dev.c): ask by SO_TIMESTAMPING or SO_TIMESTAMPNS to be sure of it.
func (m *Metadata) Timestamp() (time.Time, bool) {
	if !m.has(abi.ValidTstamp) {
		return time.Time{}, false
	}
	return nanoseconds(m.rec.Tstamp), true
}

// HWTimestamp returns when the NIC received the packet, by the NIC's own clock,
// in nanoseconds, and false if it was not taken. That clock may have any epoch:
// take differences, unless something like ptp4l keeps it at UTC or TAI.
func (m *Metadata) HWTimestamp() (time.Time, bool) {
	if !m.has(abi.ValidHWTstamp) {
		return time.Time{}, false
	}
	return nanoseconds(m.rec.HWTstamp), true
}

func nanoseconds(ns uint64) time.Time {
	const second = uint64(time.Second)
	return time.Unix(int64(ns/second), int64(ns%second))
}

// Mark returns the packet's mark, skb->mark, and false if it is not known.
func (m *Metadata) Mark() (uint32, bool) {
	if !m.has(abi.ValidMark) {
		return 0, false
	}
	return m.rec.Mark, true
}

// Priority returns the packet's priority, skb->priority, and false if it is not
// known.
func (m *Metadata) Priority() (uint32, bool) {
	if !m.has(abi.ValidPriority) {
		return 0, false
	}
	return m.rec.Priority, true
}

// Hash returns the packet's flow hash, skb->hash, and false if it is not known.
func (m *Metadata) Hash() (uint32, bool) {
	if !m.has(abi.ValidHash) {
		return 0, false
	}
	return m.rec.Hash, true
}

// VLAN returns the tag control information of the VLAN tag that was taken off
// the packet: priority (PCP) in bits 15 to 13, DEI in bit 12, VLAN id in bits 11
// to 0, IEEE 802.1Q. It returns false if there was no tag or it is not known.
func (m *Metadata) VLAN() (uint16, bool) {
	if !m.has(abi.ValidVLAN) {
		return 0, false
	}
	return m.rec.VLANTCI, true
}

// VLANProtocol returns the ethertype of the VLAN tag in host byte order, 0x8100
// or 0x88a8. It returns false if [Metadata.VLAN] does.
func (m *Metadata) VLANProtocol() (uint16, bool) {
	if !m.has(abi.ValidVLAN) {
		return 0, false
	}
	var wire [2]byte
	binary.NativeEndian.PutUint16(wire[:], m.rec.VLANProto)
	return binary.BigEndian.Uint16(wire[:]), true
}

// IfIndex returns the index of the interface that received the packet, and false
// if it is not known. The name belongs to it in the network namespace of that
// interface only.
func (m *Metadata) IfIndex() (int, bool) {
	if !m.has(abi.ValidIfIndex) {
		return 0, false
	}
	return int(m.rec.IfIndex), true
}

// NAPIID returns the id of the NAPI instance, in effect the queue, that received
// the packet, as SO_INCOMING_NAPI_ID does for sockets, and false if it is not
// known.
func (m *Metadata) NAPIID() (uint32, bool) {
	if !m.has(abi.ValidNAPIID) {
		return 0, false
	}
	return m.rec.NAPIID, true
}

// CPU returns the number of the CPU that processed the packet on reception, and
// false if it is not known.
func (m *Metadata) CPU() (uint32, bool) {
	if !m.has(abi.ValidCPU) {
		return 0, false
	}
	return m.rec.CPU, true
}

// Flags returns the record's flags.
func (m *Metadata) Flags() Flags { return Flags(m.rec.Flags) }

// Format returns the format of the area, see [Metadata.Raw]. It means nothing
// when there is no area.
func (m *Metadata) Format() Format { return Format(m.rec.Format) }

// SetMark sets the mark, skb->mark.
func (m *Metadata) SetMark(mark uint32) {
	m.stamp()
	m.rec.Mark = mark
	m.rec.Valid |= abi.ValidMark
}

// LaunchTime returns the time at which a datagram is to leave, see
// [Metadata.SetLaunchTime], and false if there is none.
func (m *Metadata) LaunchTime() (uint64, bool) {
	if !m.has(abi.ValidLaunch) {
		return 0, false
	}
	return m.rec.Launch, true
}

// SetLaunchTime sets the time at which a datagram is to leave, in nanoseconds by
// CLOCK_MONOTONIC: what SCM_TXTIME sets without metadata. Without a queueing
// discipline that heeds it (fq, etf) the datagram leaves at once.
func (m *Metadata) SetLaunchTime(ns uint64) {
	m.stamp()
	m.rec.Launch = ns
	m.rec.Valid |= abi.ValidLaunch
}

// ClearFields forgets everything but the area, without what a sender gave
// (KeySender): to send on what a packet brought, and not ask for its mark and
// priority. It forgets an area that cannot be read, too.
func (m *Metadata) ClearFields() {
	area, n, format := m.rec.Area, m.rec.AreaLen, m.rec.Format
	ok := m.Err() == nil
	*m = Metadata{}
	if n == 0 || !ok {
		return
	}
	m.rec.Area = area
	m.setArea(int(n), Format(format))
	if m.Format() == FormatTLV {
		// The area is well-formed: deleting from it cannot fail.
		_ = m.Delete(KeySender)
		if len(cutTLVAnchor(m.area())) == 0 {
			*m = Metadata{}
		}
	}
}

// IsEmpty reports whether nothing is known at all: no field and no area.
func (m *Metadata) IsEmpty() bool { return m.rec.Valid == 0 && m.rec.AreaLen == 0 }

// Sender reads the metadata that the sender of the packet gave, a socket on the
// same host, into dst, as far as the policy lets it cross
// (bpf.Attachment.AttachLocal). It returns false, and dst is empty, if there is
// none. dst must not be m.
//
// These are the sender's words, while m has those of the programs on the packet's
// way: that is why they are not to be found under the same keys.
func (m *Metadata) Sender(dst *Metadata) bool {
	dst.Reset()
	v, ok := m.Bytes(KeySender)
	if !ok || len(v)%tlvAlign != 0 || len(v) == 0 {
		return false
	}
	area := AppendAnchor(append(dst.rec.Area[:0], v...), FormatTLV)
	if CheckTLVs(area) != nil {
		dst.Reset()
		return false
	}
	dst.setArea(len(area), FormatTLV)
	return true
}

// SetPriority sets the priority, skb->priority.
func (m *Metadata) SetPriority(priority uint32) {
	m.stamp()
	m.rec.Priority = priority
	m.rec.Valid |= abi.ValidPriority
}

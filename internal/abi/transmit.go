// SPDX-License-Identifier: Apache-2.0

package abi

// TxNumber returns the number that SCM_TXTIME carries: of the use of the transmit slot
// with that index, of the process.
func TxNumber(process, use uint32, index int) uint64 {
	return uint64(process)<<(TxIndexBits+TxUseBits) | uint64(use&(1<<TxUseBits-1))<<TxIndexBits | uint64(index)
}

// Set makes s what is sent of a record.
func (s *Sent) Set(r *Record) {
	s.Version, s.AreaLen, s.Format = r.Version, r.AreaLen, r.Format
	s.Valid, s.Flags = r.Valid, r.Flags
	s.Mark, s.Priority, s.Launch = r.Mark, r.Priority, r.Launch
	copy(s.Area[:r.AreaLen], r.Area[:])
}

// Refuses returns the bits of Record.Valid that a record asks for and the policy of
// the socket's attachment refuses. Launch times are for datagrams.
func (i *TxInfo) Refuses(r *Record, datagram bool) uint16 {
	var refused uint16
	if r.Valid&ValidMark != 0 && r.Mark&^i.Policy.MarkMask != 0 {
		refused |= ValidMark
	}
	if r.Valid&ValidPriority != 0 && r.Priority > i.Policy.PriorityMax {
		refused |= ValidPriority
	}
	if r.Valid&ValidLaunch != 0 && (i.Policy.Launch == 0 || !datagram) {
		refused |= ValidLaunch
	}
	return refused
}

// SPDX-License-Identifier: Apache-2.0

package bpf

import "github.com/sockmeta/sockmeta-go/internal/abi"

// A Policy says what applications may ask for with what they send. The zero value
// allows nothing, DefaultPolicy what needs no capability. What a policy refuses is
// taken from the record, counted (Attachment.Counts) and reported to the application.
// The packet leaves.
type Policy struct {
	// MarkMask are the bits of the packet's mark that applications may set.
	// 0: none, as SO_MARK needs CAP_NET_ADMIN or CAP_NET_RAW. A record that asks
	// for other bits, too, sets none. The mark is set as the packet leaves the
	// IP layer: TC programs, queueing disciplines and what is behind a loopback
	// device see it, routing rules and netfilter's output hooks do not.
	MarkMask uint32

	// MaxPriority is the highest priority that applications may give a packet
	// (skb->priority). SO_PRIORITY allows up to 6 without a capability.
	MaxPriority uint32

	// LaunchTimes lets records set the time at which a datagram leaves.
	// SCM_TXTIME does the same, by CLOCK_MONOTONIC without a capability.
	LaunchTimes bool

	// LocalKeys are the keys of the values that may reach receivers on this
	// host, see Attachment.AttachLocal. Empty: none.
	LocalKeys []uint8
}

// DefaultPolicy returns the policy of Options that name none. It allows what
// applications may do without a capability: priorities up to 6
// (sk_set_prio_allowed in net/core/sock.c) and launch times.
func DefaultPolicy() Policy { return Policy{MaxPriority: 6, LaunchTimes: true} }

func (p *Policy) encode() abi.Policy {
	e := abi.Policy{MarkMask: p.MarkMask, PriorityMax: p.MaxPriority}
	if p.LaunchTimes {
		e.Launch = 1
	}
	for _, k := range p.LocalKeys {
		// Padding and anchors are the area's own, and what came from a
		// sender is no other sender's.
		if k != abi.KeyPad && k != abi.KeyAnchor && k != abi.KeySender {
			e.Local[k>>6] |= 1 << (k & 63)
			e.Crosses = 1
		}
	}
	return e
}

// decodePolicy returns the policy that the programs follow.
func decodePolicy(e *abi.Policy) Policy {
	p := Policy{MarkMask: e.MarkMask, MaxPriority: e.PriorityMax, LaunchTimes: e.Launch != 0}
	for k := range 64 * len(e.Local) {
		if e.Local[k>>6]&(1<<(k&63)) != 0 {
			p.LocalKeys = append(p.LocalKeys, uint8(k))
		}
	}
	return p
}

// SPDX-License-Identifier: Apache-2.0

package bpf

import "github.com/sockmeta/sockmeta-go/internal/abi"

// A Policy says what applications may ask for with what they send. The zero value
// allows what they may do without any capability anyhow: priorities up to 6 and
// launch times. What it refuses is taken from the record, counted
// (Attachment.Counts) and reported to the application, and the packet leaves.
type Policy struct {
	// MarkMask are the bits of the packet's mark that applications may set.
	// 0: none, as SO_MARK needs CAP_NET_ADMIN or CAP_NET_RAW. A record that asks
	// for other bits, too, sets none. The mark is set as the packet leaves the
	// IP layer: TC programs, queueing disciplines and what is behind a loopback
	// device see it, routing rules and netfilter's output hooks do not.
	MarkMask uint32

	// MaxPriority is the highest priority that applications may give a packet
	// (skb->priority). 0: 6, up to which SO_PRIORITY needs no capability.
	MaxPriority uint32

	// RefuseLaunchTimes keeps records from setting the time at which a datagram
	// leaves (SCM_TXTIME does the same, by CLOCK_MONOTONIC without any
	// capability).
	RefuseLaunchTimes bool

	// LocalKeys are the keys of the values that may reach receivers on this
	// host, see Attachment.AttachLocal. Empty: none.
	LocalKeys []uint8
}

// defaultMaxPriority is what sk_set_prio_allowed() in net/core/sock.c lets
// everybody have.
const defaultMaxPriority = 6

func (p *Policy) encode() abi.Policy {
	e := abi.Policy{MarkMask: p.MarkMask, PriorityMax: p.MaxPriority, Launch: 1}
	if p.MaxPriority == 0 {
		e.PriorityMax = defaultMaxPriority
	}
	if p.RefuseLaunchTimes {
		e.Launch = 0
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

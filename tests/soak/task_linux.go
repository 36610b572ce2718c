// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/netip"
	"time"
)

// A Task is what an actor is to do. It says all that is random about it, so that
// processes choose nothing of importance by themselves.
type Task struct {
	Kind string // "receive", "send", "serve", "adopt", "dial"
	Seed uint64
	Flow int
	// Handover is for sockets that two processes use.
	Handover Handover

	Network   string
	Local     netip.AddrPort
	Remote    netip.AddrPort // of connected sockets, and of senders'
	Connected bool

	// Of receivers.
	Sockets int // more than one: a SO_REUSEPORT group
	Buffer  int
	GRO     bool
	How     reading

	// Of senders and of those who dial.
	Number uint64 // nobody else's
	For    time.Duration
	As     sending

	Ports []uint16 // of servers
}

// A Handover says whether a socket comes from another process or goes to it.
type Handover int

const (
	keep Handover = iota
	give
	take
)

func (t *Task) actor() actor {
	switch t.Kind {
	case "receive":
		return &receiver{Task: *t}
	case "send":
		return &sender{Task: *t}
	case "serve":
		return &server{Task: *t}
	case "adopt":
		return &adopter{Task: *t}
	}
	return &dialer{Task: *t}
}

// numberShift leaves the bits below for a sender's own count, and the uppermost
// for noMetadata.
const numberShift = 40

// noMetadata is set in the id of a datagram that is sent without, see
// internal/testprog/c/wire.bpf.c.
const noMetadata = uint64(1) << 63

// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"fmt"
	"strings"
)

// A Tier says by which of the kernel's ways metadata travels. The way makes no
// difference to the application, other than in cost and in what it needs.
type Tier int

// The tiers, each better than the ones before it.
const (
	// TierNone: a plain socket.
	TierNone Tier = iota
	// TierHandle: a handle in skb->tstamp stands for the record. Linux 6.1.
	TierHandle
	// TierTracing: as TierHandle, and control messages at level SOL_BPF that
	// programs send themselves are understood. Needs BPF trampolines.
	TierTracing
	// TierNative: records come as control messages of the kernel's, and are never
	// lost to newer packets. Needs kfuncs that no released kernel has: the module
	// of bpf/kmod, Linux 6.12.
	TierNative
)

// String returns none, handle, tracing or native.
func (t Tier) String() string {
	switch t {
	case TierNone:
		return "none"
	case TierHandle:
		return "handle"
	case TierTracing:
		return "tracing"
	case TierNative:
		return "native"
	}
	return fmt.Sprintf("Tier(%d)", int(t))
}

// Support says what a connection can do.
type Support struct {
	// Tier is what is in use.
	Tier Tier
	// Mapped says that records are read from a mapping that this process
	// shares with the kernel. Without it each record of a datagram is a
	// getsockopt call, but for TierNative, where it comes with the datagram. Those
	// of TCP always are.
	Mapped bool
	// Unmapped says why they are not, and is nil where they are or need not be.
	Unmapped error
	// Missing says why it is no better tier, the nearest first.
	Missing []Missing
}

// Missing says why a tier is not in use.
type Missing struct {
	Tier Tier
	// Err is ErrNotSupported.
	Err error
}

// Err returns nil where there is metadata, else why there is none, an error
// that is ErrNotSupported.
func (s Support) Err() error {
	if s.Tier != TierNone || len(s.Missing) == 0 {
		return nil
	}
	return s.Missing[0].Err
}

// String returns the tier, how records are read, and why there are none where it is
// none.
func (s Support) String() string {
	var b strings.Builder
	b.WriteString(s.Tier.String())
	if s.Tier != TierNone {
		switch {
		case s.Mapped:
			b.WriteString(" (mapped)")
		case s.Tier != TierNative:
			b.WriteString(" (getsockopt)")
		}
	}
	if err := s.Err(); err != nil {
		fmt.Fprintf(&b, ": %v", err)
	}
	return b.String()
}

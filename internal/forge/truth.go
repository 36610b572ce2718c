// SPDX-License-Identifier: Apache-2.0

package forge

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/sockmeta/sockmeta-go/cmsg"
)

// Doubt are the flags that say that an area may be none, or not whole: what it holds is
// then the reader's to judge.
const Doubt = cmsg.FlagUnanchored | cmsg.FlagDecapsulated | cmsg.FlagUnreadable | cmsg.FlagTruncated

// A Truth is what a record of a packet may hold. Its zero value allows nothing that
// somebody gave.
type Truth struct {
	// Values are those that the producer gives, by their keys; nil: any that is not
	// the forger's.
	Values map[cmsg.Key][]byte
	// Sender are the values that the packet's own sender gave, as an area without an
	// anchor.
	Sender []byte
	// Mark is that of the packet, and Interfaces are those that it passes.
	Mark       uint32
	Interfaces []int
	// Since is when the forger began: the kernel received the packet later.
	Since time.Time
}

// A Lie is something in a record that is not true.
type Lie struct {
	// What is the field, or "sender", "value" or "area".
	What string
	Says string
}

func (l *Lie) Error() string { return l.What + ": " + l.Says }

func lie(what, format string, args ...any) *Lie { return &Lie{what, fmt.Sprintf(format, args...)} }

// Check returns what in a record is not true, and not in doubt either, or nil.
func (tr *Truth) Check(md *cmsg.Metadata) *Lie {
	if l := tr.checkFields(md); l != nil {
		return l
	}
	if md.Flags()&Doubt != 0 {
		return nil
	}
	if len(md.Raw()) > 0 && md.Format() != cmsg.FormatTLV {
		return lie("area", "format %v: %x", md.Format(), md.Raw())
	}
	for key, value := range md.All() {
		if key == cmsg.KeySender {
			if !bytes.Equal(value, tr.Sender) {
				return lie("sender", "gave %x, want %x", value, tr.Sender)
			}
			continue
		}
		want, ok := tr.Values[key]
		if !ok || want != nil && !bytes.Equal(value, want) || IsForged(value) {
			return lie("value", "%v is %x, want %x", key, value, want)
		}
	}
	if err := md.Err(); err != nil {
		return lie("area", "of no producer, %x: %v", md.Raw(), err)
	}
	return nil
}

func (tr *Truth) checkFields(md *cmsg.Metadata) *Lie {
	if mark, ok := md.Mark(); ok && mark != tr.Mark {
		return lie("mark", "%#x, want %#x", mark, tr.Mark)
	}
	if i, ok := md.IfIndex(); ok && tr.Interfaces != nil && !slices.Contains(tr.Interfaces, i) {
		return lie("interface", "%d, want one of %d", i, tr.Interfaces)
	}
	if ts, ok := md.Timestamp(); ok && (ts.Before(tr.Since) || ts.After(time.Now().Add(time.Minute))) {
		return lie("time", "received at %v, and the forger began at %v", ts, tr.Since)
	}
	if ts, ok := md.HWTimestamp(); ok {
		return lie("hardware time", "%v, and there is no NIC", ts)
	}
	if ns, ok := md.LaunchTime(); ok {
		return lie("launch time", "%d, in what was received", ns)
	}
	return nil
}

// IsForged says whether bytes hold what a forger says.
func IsForged(b []byte) bool {
	for _, canary := range [][]byte{
		{0x0F, 0x0F, 0xCA, 0x4A}, {0x4A, 0xCA, 0x0F, 0x0F}, []byte("canary"),
	} {
		if bytes.Contains(b, canary) {
			return true
		}
	}
	return false
}

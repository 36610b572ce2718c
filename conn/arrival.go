// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"sync"

	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/abi"
)

// An arrival is what the control messages of a datagram say of its record.
type arrival struct {
	// handle stands for the record, and is where the packet's time should be; 0
	// where there is none.
	handle uint64
	// record is the record itself, which the native tier has; nil elsewhere.
	record []byte
	// cut says that the kernel did not get the record into the buffer.
	cut bool
}

// arrival looks at the control messages of a datagram, and at what recvmsg gave as
// flags.
func (c *UDPConn) arrival(oob []byte, flags int) arrival {
	if c.sock.native {
		a := findRecord(oob)
		a.cut = a.record == nil && flags&msgCtrunc != 0
		return a
	}
	return arrival{handle: findHandle(oob)}
}

// callersFlags returns the flags that recvmsg gave without MSG_CTRUNC where that is about
// the record alone: had a message of the caller's been cut, there would be no room left
// in the buffer.
func (a arrival) callersFlags(flags, room int) int {
	if a.cut && room >= cmsg.Space(0) {
		return flags &^ msgCtrunc
	}
	return flags
}

// resident returns bytes whose pages are there: recvmsg of the native tier does not wait
// for pages to put a record into. Nobody else sees to them for the second message of
// recvmmsg on, or where abi.FeatureFaultIn is missing.
func resident(n int) []byte {
	b := make([]byte, n)
	for at := 0; at < n; at += minPage {
		b[at] = 0
	}
	if n > 0 {
		b[n-1] = 0
	}
	return b
}

// minPage is the smallest page that Linux has.
const minPage = 4096

// findHandle returns the handle in the control messages of a datagram, 0 where
// there is none.
func findHandle(oob []byte) uint64 {
	it := cmsg.Parse(oob)
	for m, ok := it.Next(); ok; m, ok = it.Next() {
		if kindOf(m) != kindTimestamping {
			continue
		}
		if t := timespec(m.Data); t&abi.HandleBit != 0 {
			return t
		}
	}
	return 0
}

// findRecord returns the record in the control messages of a datagram. The handle is
// there where the application asked for times, of whatever kind.
func findRecord(oob []byte) (a arrival) {
	it := cmsg.Parse(oob)
	for m, ok := it.Next(); ok; m, ok = it.Next() {
		if isRecord(m) {
			a.record = m.Data
		} else if t := firstTime(m); t&abi.HandleBit != 0 {
			a.handle = t
		}
	}
	return a
}

// recordOOB is the room that the records of datagrams take in a buffer for control
// messages.
func (c *UDPConn) recordOOB() int {
	if c.sock.native {
		return cmsg.MetadataSpace
	}
	return 0
}

// lastArrival is the last datagram's, of the native tier.
type lastArrival struct {
	mu sync.Mutex
	// The record is a copy, in buf where it is not too long to be one.
	arrival
	buf [cmsg.MetadataSpace]byte
}

// remember keeps what Metadata is to return.
func (c *UDPConn) remember(a arrival) {
	if !c.sock.native {
		c.last.Store(a.handle)
		return
	}
	l := &c.lastArrival
	l.mu.Lock()
	defer l.mu.Unlock()
	l.arrival = arrival{cut: a.cut}
	if a.record != nil {
		l.record = append(l.buf[:0], a.record...)
	}
}

// lastMetadata returns what was remembered.
func (c *UDPConn) lastMetadata(md *cmsg.Metadata) error {
	if !c.sock.native {
		_, err := c.record(arrival{handle: c.last.Load()}, md)
		return err
	}
	c.lastArrival.mu.Lock()
	defer c.lastArrival.mu.Unlock()
	_, err := c.record(c.lastArrival.arrival, md)
	return err
}

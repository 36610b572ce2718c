// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"fmt"
	"sync"

	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/abi"
)

// native gets the record itself as a control message. Newer packets cannot take its
// place.
type native struct {
	// mu guards the last datagram's arrival.
	mu   sync.Mutex
	last arrival
	// buf has the copy of the last record, unless it is too long.
	buf [cmsg.MetadataSpace]byte
}

func (*native) room() int { return nativeOOB }

func (*native) kind(m cmsg.Message) kind {
	if isRecord(m) {
		return kindOwn
	}
	return kindOf(m)
}

func (*native) locate(got []byte, flags int) arrival {
	a := findRecord(got)
	a.cut = a.record == nil && flags&msgCtrunc != 0
	return a
}

// findRecord returns the record in the control messages of a datagram. It returns a
// handle, too, if the application asked for times of any kind.
func findRecord(got []byte) (a arrival) {
	it := cmsg.Parse(got)
	for m, ok := it.Next(); ok; m, ok = it.Next() {
		if isRecord(m) {
			a.record = m.Data
		} else if t := firstTime(m); t&abi.HandleBit != 0 {
			a.handle = t
		}
	}
	return a
}

func (*native) prefetch([]arrival) {}

func (*native) fetch(a *arrival, md *cmsg.Metadata) (tsFlags, error) {
	switch {
	case a.record != nil:
		return tsFlags{}, md.Decode(a.record)
	case a.cut:
		return tsFlags{}, fmt.Errorf("%w: MSG_CTRUNC: the kernel could not write the record", ErrTruncated)
	}
	return tsFlags{}, ErrNoMetadata
}

func (*native) timestamping(uint64) tsFlags { return tsFlags{} }

// remember copies the record, whose buffer is used again.
func (c *native) remember(a *arrival) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = arrival{cut: a.cut}
	if a.record != nil {
		c.last.record = append(c.buf[:0], a.record...)
	}
}

func (c *native) recall(md *cmsg.Metadata) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.fetch(&c.last, md)
	return err
}

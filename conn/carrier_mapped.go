// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
)

// mapped reads records from the receive map, which this process has mapped.
type mapped struct {
	handles
	slots *bpf.Slots
	// id is what the slots know the socket by.
	id uint64
}

func (c *mapped) prefetch(as []arrival) {
	for i := range as {
		c.slots.Touch(as[i].handle)
	}
}

func (c *mapped) fetch(a *arrival, md *cmsg.Metadata) (tsFlags, error) {
	flags, err := c.slots.Read(a.handle, c.id, md.Record())
	return tsFlags{known: err == nil, flags: flags}, err
}

func (c *mapped) timestamping(handle uint64) tsFlags {
	flags, err := c.slots.Timestamping(handle, c.id)
	return tsFlags{known: err == nil, flags: flags}
}

func (c *mapped) recall(md *cmsg.Metadata) error {
	_, err := c.fetch(&arrival{handle: c.last.Load()}, md)
	return err
}

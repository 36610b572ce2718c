// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"syscall"

	"github.com/sockmeta/sockmeta-go/cmsg"
)

// asked asks the kernel for each record, by getsockopt.
type asked struct {
	handles
	raw syscall.RawConn
}

func (*asked) prefetch([]arrival) {}

func (c *asked) fetch(a *arrival, md *cmsg.Metadata) (tsFlags, error) {
	if a.handle == 0 {
		return tsFlags{}, ErrNoMetadata
	}
	q := queries.Get().(*query)
	defer queries.Put(q)
	q.handle = a.handle
	if err := c.raw.Control(q.ask); err != nil {
		return tsFlags{}, err
	}
	if q.err != nil {
		return tsFlags{}, q.err
	}
	*md = q.md
	return tsFlags{known: true, flags: q.tsflags}, nil
}

func (*asked) timestamping(uint64) tsFlags { return tsFlags{} }

func (c *asked) recall(md *cmsg.Metadata) error {
	_, err := c.fetch(&arrival{handle: c.last.Load()}, md)
	return err
}

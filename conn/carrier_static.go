// SPDX-License-Identifier: Apache-2.0

package conn

import "github.com/sockmeta/sockmeta-go/cmsg"

// A static is a carrier whose methods are called by its type. A call through the
// interface would move what its arguments point to to the heap: buffers, and the
// caller's Metadata. After a system call each page that is not on the stack costs.
type static struct{ carrier }

func (s static) kind(m cmsg.Message) kind {
	switch c := s.carrier.(type) {
	case *mapped:
		return c.kind(m)
	case *asked:
		return c.kind(m)
	case *native:
		return c.kind(m)
	}
	return s.carrier.(none).kind(m)
}

func (s static) locate(got []byte, flags int) arrival {
	switch c := s.carrier.(type) {
	case *mapped:
		return c.locate(got, flags)
	case *asked:
		return c.locate(got, flags)
	case *native:
		return c.locate(got, flags)
	}
	return s.carrier.(none).locate(got, flags)
}

func (s static) fetch(a *arrival, md *cmsg.Metadata) (tsFlags, error) {
	switch c := s.carrier.(type) {
	case *mapped:
		return c.fetch(a, md)
	case *asked:
		return c.fetch(a, md)
	case *native:
		return c.fetch(a, md)
	}
	return s.carrier.(none).fetch(a, md)
}

func (s static) timestamping(handle uint64) tsFlags {
	switch c := s.carrier.(type) {
	case *mapped:
		return c.timestamping(handle)
	case *asked:
		return c.timestamping(handle)
	case *native:
		return c.timestamping(handle)
	}
	return s.carrier.(none).timestamping(handle)
}

func (s static) remember(a *arrival) {
	switch c := s.carrier.(type) {
	case *mapped:
		c.remember(a)
	case *asked:
		c.remember(a)
	case *native:
		c.remember(a)
	}
}

func (s static) recall(md *cmsg.Metadata) error {
	switch c := s.carrier.(type) {
	case *mapped:
		return c.recall(md)
	case *asked:
		return c.recall(md)
	case *native:
		return c.recall(md)
	}
	return s.carrier.(none).recall(md)
}

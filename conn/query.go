// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"sync"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
)

// A query asks the kernel something about a socket. Queries are used again, as
// RawConn's functions let everything escape.
type query struct {
	// handle is the record that ask asks for, opt the one of askTCP.
	handle uint64
	opt    int
	// instance is the one that should have the socket.
	instance uint64

	md      cmsg.Metadata
	tsflags uint32
	err     error

	ask    func(fd uintptr)
	askTCP func(fd uintptr)
	// askFlags asks what the application wants of SO_TIMESTAMPING.
	askFlags func(fd uintptr)
	// askAttached asks whether the instance has the socket.
	askAttached func(fd uintptr)
}

var queries = sync.Pool{New: func() any {
	q := new(query)
	q.ask = func(fd uintptr) { q.tsflags, q.err = bpf.SocketSlot(int(fd), q.handle, q.md.Record()) }
	q.askTCP = func(fd uintptr) { q.err = bpf.SocketRecord(int(fd), q.opt, q.md.Record()) }
	q.askAttached = func(fd uintptr) { q.err = attached(int(fd), q.instance) }
	q.askFlags = func(fd uintptr) { q.tsflags = applicationFlags(int(fd)) }
	return q
}}

// SPDX-License-Identifier: Apache-2.0

package conn

import "sync"

const (
	// smallOOB is the room for control messages that reads have on the stack. It is
	// enough for most callers, and clearing more costs each read.
	smallOOB = 256
	// largeOOB is the room that others begin with.
	largeOOB = 1024
)

// An oobBuffer is a buffer for control messages that is used again.
type oobBuffer struct{ b []byte }

var oobBuffers = sync.Pool{New: func() any { return &oobBuffer{resident(largeOOB)} }}

// sized returns size bytes.
func (o *oobBuffer) sized(size int) []byte {
	if size > len(o.b) {
		o.b = resident(size)
	}
	return o.b[:size]
}

// release gives the buffer back; nil is none.
func (o *oobBuffer) release() {
	if o != nil {
		oobBuffers.Put(o)
	}
}

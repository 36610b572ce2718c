// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"sync/atomic"

	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/abi"
)

// handles is the part that mapped and asked share: a handle stands for the record.
type handles struct {
	// last is the last datagram's handle, 0 for none.
	last atomic.Uint64
}

func (*handles) room() int { return handleOOB }

func (*handles) kind(m cmsg.Message) kind { return kindOf(m) }

func (*handles) locate(got []byte, _ int) arrival { return arrival{handle: findHandle(got)} }

func (h *handles) remember(a *arrival) { h.last.Store(a.handle) }

// findHandle returns the handle in the control messages of a datagram, 0 if there is
// none.
func findHandle(got []byte) uint64 {
	it := cmsg.Parse(got)
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

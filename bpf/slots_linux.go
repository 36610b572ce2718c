// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Slots is the receive map of an attachment, mapped read-only. It stays mapped
// as long as something refers to it, also when the attachment is closed.
type Slots struct {
	mem []byte
	n   uint64
	// used grows with the sockets of this process that are made, see keep.
	used atomic.Uint64
}

func mapSlots(m *ebpf.Map) (*Slots, error) {
	size := int(m.MaxEntries()) * int(unsafe.Sizeof(Slot{}))
	if int(m.ValueSize()) != int(unsafe.Sizeof(Slot{})) {
		return nil, fmt.Errorf("receive map has slots of %d bytes: %w", m.ValueSize(), ErrNotSupported)
	}
	mem, err := unix.Mmap(m.FD(), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("receive map: %w", os.NewSyscallError("mmap", err))
	}
	s := &Slots{mem: mem, n: uint64(m.MaxEntries())}
	runtime.AddCleanup(s, func(mem []byte) { _ = unix.Munmap(mem) }, mem)
	return s, nil
}

// slot returns the slot that handle names, nil where there is none.
func (s *Slots) slot(handle uint64) *Slot {
	if s == nil {
		return nil
	}
	index := handle & indexMask
	if handle&HandleBit == 0 || index >= s.n {
		return nil
	}
	return (*Slot)(unsafe.Pointer(&s.mem[index*uint64(unsafe.Sizeof(Slot{}))]))
}

// Touch fetches what Read looks at first into this CPU's caches: the lines are
// another CPU's, and where many are touched before the first is read, the CPU
// waits for all of them at once. It says nothing about the record.
func (s *Slots) Touch(handle uint64) {
	slot := s.slot(handle)
	if slot == nil {
		return
	}
	// The first two cache lines have all of a short record.
	atomic.LoadUint64(&slot.Seq)
	atomic.LoadUint64((*uint64)(unsafe.Add(unsafe.Pointer(slot), cacheLine)))
	runtime.KeepAlive(s)
}

const cacheLine = 64

// Timestamping returns what the socket of a record asked of SO_TIMESTAMPING, as
// Read does, without the record.
func (s *Slots) Timestamping(handle, owner uint64) (tsflags uint32, err error) {
	slot := s.slot(handle)
	if slot == nil {
		return 0, ErrNoMetadata
	}
	if atomic.LoadUint64(&slot.Seq) != handle || atomic.LoadUint64(&slot.Owner) != owner {
		return 0, ErrOverrun
	}
	tsflags = atomic.LoadUint32(&slot.Tsflags)
	if atomic.LoadUint64(&slot.Seq) != handle {
		return 0, ErrOverrun
	}
	runtime.KeepAlive(s)
	return tsflags, nil
}

// Read copies the record that handle stands for to dst, a Record as words, and
// returns what its socket asked of SO_TIMESTAMPING. The error is ErrOverrun
// when the slot holds another packet's record by now, or one of another socket
// than owner (SocketID); dst is undefined then. Words of dst behind the record
// (Words) keep what they have.
//
// Read does not block or allocate.
func (s *Slots) Read(handle, owner uint64, dst *[RecordWords]uint64) (tsflags uint32, err error) {
	slot := s.slot(handle)
	if slot == nil {
		return 0, ErrNoMetadata
	}
	if atomic.LoadUint64(&slot.Seq) != handle {
		return 0, ErrOverrun
	}
	if atomic.LoadUint64(&slot.Owner) != owner {
		return 0, ErrOverrun
	}
	// A program may write meanwhile. Atomic loads keep their order, so that
	// seq, loaded last, vouches for all of them.
	src := (*[RecordWords]uint64)(unsafe.Pointer(&slot.Rec))
	dst[0] = atomic.LoadUint64(&src[0])
	for i, words := 1, Words(dst); i < words; i++ {
		dst[i] = atomic.LoadUint64(&src[i])
	}
	tsflags = atomic.LoadUint32(&slot.Tsflags)
	if atomic.LoadUint64(&slot.Seq) != handle {
		return 0, ErrOverrun
	}
	runtime.KeepAlive(s)
	return tsflags, nil
}

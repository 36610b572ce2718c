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

	"github.com/sockmeta/sockmeta-go/internal/abi"
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
	size := int(m.MaxEntries()) * int(unsafe.Sizeof(abi.Slot{}))
	if int(m.ValueSize()) != int(unsafe.Sizeof(abi.Slot{})) {
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
func (s *Slots) slot(handle uint64) *abi.Slot {
	if s == nil {
		return nil
	}
	index := handle & abi.IndexMask
	if handle&abi.HandleBit == 0 || index >= s.n {
		return nil
	}
	return (*abi.Slot)(unsafe.Pointer(&s.mem[index*uint64(unsafe.Sizeof(abi.Slot{}))]))
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
	tsflags = atomic.LoadUint32(&slot.TSFlags)
	if atomic.LoadUint64(&slot.Seq) != handle {
		return 0, ErrOverrun
	}
	runtime.KeepAlive(s)
	return tsflags, nil
}

// Read copies the record that handle stands for to dst, and returns what its socket
// asked of SO_TIMESTAMPING. The error is ErrOverrun
// when the slot holds another packet's record by now, or one of another socket
// than owner (SocketID); dst is undefined then.
//
// Read does not block or allocate.
func (s *Slots) Read(handle, owner uint64, dst *abi.Record) (tsflags uint32, err error) {
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
	// A program may write meanwhile: seq, loaded last, vouches for all of it.
	dst.Load(&slot.Rec)
	tsflags = atomic.LoadUint32(&slot.TSFlags)
	if atomic.LoadUint64(&slot.Seq) != handle {
		return 0, ErrOverrun
	}
	runtime.KeepAlive(s)
	return tsflags, nil
}

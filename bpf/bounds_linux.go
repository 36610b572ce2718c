// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"math"

	"github.com/cilium/ebpf"

	"github.com/sockmeta/sockmeta-go/internal/abi"
)

const (
	// socketMemory is what the kernel keeps at a socket at most, in bytes:
	// docs/security.md has what was measured.
	socketMemory = 10 << 10
	// memoryShare is the part of the memory that sockets may take.
	memoryShare = 3

	minSockets = 64
	maxSockets = 1 << 20
)

// checkBounds says whether the options are such as can be.
func (o *Options) checkBounds() error {
	for _, n := range []int{o.MaxSockets, o.MaxSocketsPerUser} {
		if n < 0 || int64(n) > math.MaxInt32 {
			return fmt.Errorf("at most %d sockets: want a number from 1 to %d, or 0 for the default", n, math.MaxInt32)
		}
	}
	return nil
}

// bounds returns how many sockets there may be beside the receive map.
func (o *Options) bounds(rx *ebpf.Map) abi.Bounds {
	b := abi.Bounds{Sockets: uint32(o.MaxSockets), PerUser: uint32(o.MaxSocketsPerUser)}
	if b.Sockets == 0 {
		receive := uint64(rx.MaxEntries()) * uint64(rx.ValueSize())
		b.Sockets = defaultMaxSockets(ownMemory(), receive)
	}
	if b.PerUser == 0 {
		b.PerUser = (b.Sockets + 1) / 2
	}
	return b
}

// defaultMaxSockets returns for how many sockets a process's memory suffices.
func defaultMaxSockets(memory, receiveMap uint64) uint32 {
	left := memory - min(memory, receiveMap)
	return uint32(max(minSockets, min(maxSockets, left/memoryShare/socketMemory)))
}

// Sockets returns how many sockets have metadata now.
func (a *Attachment) Sockets() (Sockets, error) {
	rooms, err := a.mapNamed(roomsName)
	if err != nil {
		return Sockets{}, err
	}
	inst, err := a.instance()
	if err != nil {
		return Sockets{}, err
	}
	var r abi.Room
	if err := rooms.Lookup(uint32(0), &r); err != nil {
		return Sockets{}, fmt.Errorf("sockmeta: sockets: %w", err)
	}
	others := len(r.Users) - 1
	s := Sockets{
		Now: int(r.Sockets), Max: int(inst.Bounds.Sockets), Closed: closed(r.Closing, monotonic()),
		Users: make(map[uint32]int), Others: int(uint32(r.Users[others].Seats)), MaxPerUser: int(inst.Bounds.PerUser),
	}
	for _, u := range r.Users[:others] {
		if n := uint32(u.Seats); n != 0 {
			s.Users[uint32(u.Seats>>32)] += int(n)
		}
	}
	return s, nil
}

// closed is all_closing of c/bounds.h.
func closed(words [2]uint64, now uint64) (n int) {
	const count = 1<<20 - 1
	for i, word := range words {
		switch time := now >> []int{30, 33}[i]; (time - word>>40) & (1<<24 - 1) {
		case 0:
			n += int(word&count + word>>20&count)
		case 1:
			n += int(word & count)
		}
	}
	return n
}

// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"sync"
	"weak"

	"github.com/cilium/ebpf"
)

// registry knows the receive maps that this process has mapped, so that the
// sockets of an instance share one mapping, and the instances whose map it may
// not map. It does not keep anything mapped.
var registry struct {
	sync.Mutex
	slots  map[uint64]weak.Pointer[Slots]
	denied map[uint64]bool
}

func register(instance uint64, s *Slots) {
	registry.Lock()
	defer registry.Unlock()
	if registry.slots == nil {
		registry.slots = make(map[uint64]weak.Pointer[Slots])
	}
	for id, p := range registry.slots {
		if p.Value() == nil {
			delete(registry.slots, id)
		}
	}
	registry.slots[instance] = weak.Make(s)
	delete(registry.denied, instance)
}

func deny(instance uint64) {
	registry.Lock()
	defer registry.Unlock()
	// Instances come and go: asking again costs less than knowing all of them.
	if registry.denied == nil || len(registry.denied) == 64 {
		registry.denied = make(map[uint64]bool)
	}
	registry.denied[instance] = true
}

func registered(instance uint64) (s *Slots, denied bool) {
	registry.Lock()
	defer registry.Unlock()
	return registry.slots[instance].Value(), registry.denied[instance]
}

// FindSlots returns the receive map of the instance that answered a socket,
// or nil where this process may not map it: its sockets then ask the kernel
// for each record (SocketSlot).
//
// Where another process attached the instance to the cgroup that this process
// is in, FindSlots joins the attachment for the rest of this process's life.
// That, and mapping what another process attached, needs CAP_SYS_ADMIN
// (BPF_LINK_GET_FD_BY_ID, BPF_MAP_GET_FD_BY_ID).
func FindSlots(info Info) *Slots {
	s, denied := registered(info.Instance)
	if s != nil || denied {
		return s
	}
	if a := joinOwn(info.Instance); a != nil {
		return a.slots
	}
	m, err := ebpf.NewMapFromID(ebpf.MapID(info.RxMapId))
	if err == nil {
		defer m.Close()
		s, err = mapSlots(m)
	}
	if err != nil {
		deny(info.Instance)
		return nil
	}
	register(info.Instance, s)
	return s
}

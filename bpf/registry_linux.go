// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"sync"
	"weak"

	"github.com/cilium/ebpf"
)

// registry knows the receive maps that this process has mapped, so that the
// sockets of an instance share one mapping. It does not keep them mapped.
var registry struct {
	sync.Mutex
	slots map[uint64]weak.Pointer[Slots]
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
}

// FindSlots returns the receive map of the instance that answered a socket,
// or nil where this process may not map it: its sockets then ask the kernel
// for each record (SocketSlot). Mapping what another process attached needs
// CAP_SYS_ADMIN (BPF_MAP_GET_FD_BY_ID).
func FindSlots(info Info) *Slots {
	registry.Lock()
	s := registry.slots[info.Instance].Value()
	registry.Unlock()
	if s != nil {
		return s
	}
	m, err := ebpf.NewMapFromID(ebpf.MapID(info.RxMapId))
	if err != nil {
		return nil
	}
	defer m.Close()
	if s, err = mapSlots(m); err != nil {
		return nil
	}
	register(info.Instance, s)
	return s
}

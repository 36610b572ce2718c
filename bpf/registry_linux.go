// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
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

var errUngranted = fmt.Errorf("%w: mapping what another process attached needs a grant (bpf.Attachment.GrantReceiveMap, sockmeta attach -grant), or CAP_SYS_ADMIN", ErrNotSupported)

// FindSlots returns the receive map of the instance that answered a socket. The
// error says why this process may not map it: its sockets then ask the kernel
// for each record (SocketSlot).
//
// granted is where the map is pinned (Grant.Path), "" where the process has not
// been granted it. Without a grant the process that attached the instance has its
// map, and others need CAP_SYS_ADMIN (BPF_LINK_GET_FD_BY_ID,
// BPF_MAP_GET_FD_BY_ID): where the instance is attached to the cgroup that this
// process is in, FindSlots joins the attachment for the rest of this process's
// life then.
func FindSlots(info Info, granted string) (*Slots, error) {
	s, denied := registered(info.Instance)
	if s != nil {
		s.used.Store(uses.Add(1))
		return s, nil
	}
	if granted != "" {
		s, err := openGrant(granted, info)
		if err == nil {
			register(info.Instance, s)
		}
		return s, err
	}
	if denied {
		return nil, errUngranted
	}
	if a := joinOwn(info.Instance); a != nil {
		return a.slots, nil
	}
	m, err := ebpf.NewMapFromID(ebpf.MapID(info.RxMapID))
	if err == nil {
		defer m.Close()
		s, err = mapSlots(m)
	}
	if err != nil {
		deny(info.Instance)
		return nil, errUngranted
	}
	register(info.Instance, s)
	return s, nil
}

// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/sockmeta/sockmeta-go/internal/abi"
)

var errNothingToJoin = errors.New("nothing to join")

// Names of a program and of maps. The kernel keeps 15 bytes of a name, and
// BTF, where it can be read, all of it.
const (
	getsockoptName = "sockmeta_getsoc"
	instanceName   = "sockmeta_inst"
	slotsName      = "sockmeta_rx"
	socketsName    = "sockmeta_sks"
	flightsName    = "sockmeta_flights"
	connsName      = "sockmeta_conns"
	countName      = "sockmeta_count"
	rawsName       = "sockmeta_raws"
	localDevsName  = "sockmeta_local_devs"
	localsName     = "sockmeta_locals"
	seatsName      = "sockmeta_seats"
	roomsName      = "sockmeta_rooms"
	givenName      = "sockmeta_given"
)

// kernelName is what the kernel keeps of a name (BPF_OBJ_NAME_LEN).
func kernelName(name string) string { return name[:min(len(name), 15)] }

// join finds programs of our ABI that are attached to the cgroup, and takes
// references to their links, so that they outlive whoever attached them. It is
// ErrConflict where there are some, and all of them have other options.
func join(dir *os.File, opts Options) (*Attachment, error) {
	attached, err := link.QueryPrograms(link.QueryOptions{
		Target: int(dir.Fd()),
		Attach: ebpf.AttachCGroupGetsockopt,
	})
	if err != nil {
		return nil, fmt.Errorf("query %s: %w", dir.Name(), err)
	}
	none := errNothingToJoin
	for _, p := range attached.Programs {
		a, err := joinProgram(dir, p.ID, opts)
		switch {
		case errors.Is(err, ErrConflict):
			none = err
		case err == nil || !errors.Is(err, errNothingToJoin):
			return a, err
		}
	}
	return nil, none
}

func joinProgram(dir *os.File, id ebpf.ProgramID, opts Options) (_ *Attachment, err error) {
	maps, err := mapsOfProgram(id, getsockoptName)
	if err != nil {
		return nil, err
	}
	defer closeMaps(maps)
	inst, slots, sockets := maps[instanceName], maps[slotsName], maps[socketsName]
	if inst == nil || slots == nil || sockets == nil {
		return nil, errNothingToJoin
	}
	in, err := readInstance(inst)
	if err != nil || in.Info.ABI != abi.ABI {
		return nil, errNothingToJoin
	}

	a := &Attachment{cgroup: dir.Name(), joined: true, info: in.Info, maps: make(map[string]*ebpf.Map), taken: make(map[link.ID]bool)}
	defer func() {
		if err != nil {
			_ = a.Close()
		}
	}()
	if in.Info.Features&abi.FeatureNative == 0 {
		a.missing = fmt.Errorf("%w: whoever attached the programs found no kernel functions for control messages", ErrNotSupported)
	}
	if a.slots, err = mapSlots(slots); err != nil {
		return nil, err
	}
	if err := a.takeLinks(dir, sockets); err != nil {
		return nil, err
	}
	// Of seats they have let us know.
	if err := a.takeLinks(dir, a.maps[kernelName(seatsName)]); err != nil {
		return nil, err
	}
	if in.Info.Features&(abi.FeatureTracing|abi.FeatureNative) != 0 {
		// Egress, of the first ones, has let us know the map.
		raws := a.maps[rawsName]
		if err := errors.Join(a.takeLinks(dir, raws), a.takeLinks(nil, sockets, raws)); err != nil {
			return nil, err
		}
	}
	// Fewer: it was being attached or detached as we looked.
	if len(a.links) != linksWith(in.Info.Features) {
		return nil, errNothingToJoin
	}
	return a, opts.conflict(&in)
}

// takeLinks takes the links whose programs use one of the maps, unless it has them,
// and the maps that those use: the links to a cgroup, or, without one, to kernel
// functions and tracepoints.
func (a *Attachment) takeLinks(dir *os.File, of ...*ebpf.Map) error {
	links, err := linksUsing(dir, of...)
	if err != nil {
		return err
	}
	for i, l := range links {
		info, err := l.Info()
		if err != nil {
			return errors.Join(err, closeLinks(links[i:]))
		}
		if a.taken[info.ID] {
			_ = l.Close()
			continue
		}
		a.taken[info.ID] = true
		a.links = append(a.links, l)
		maps, err := mapsOfProgram(info.Program, "")
		if err != nil {
			return errors.Join(err, closeLinks(links[i+1:]))
		}
		for name, m := range maps {
			if a.maps[name] == nil {
				a.maps[name] = m
			} else {
				_ = m.Close()
			}
		}
	}
	return nil
}

func readInstance(m *ebpf.Map) (abi.Instance, error) {
	var inst abi.Instance
	if err := m.Lookup(uint32(0), &inst); err != nil {
		return inst, fmt.Errorf("instance map: %w", err)
	}
	return inst, nil
}

// mapsOfProgram opens the maps of a program, by name, if the program's name
// starts with prefix.
func mapsOfProgram(id ebpf.ProgramID, prefix string) (_ map[string]*ebpf.Map, err error) {
	prog, err := ebpf.NewProgramFromID(id)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errNothingToJoin
	}
	if err != nil {
		return nil, err
	}
	defer prog.Close()
	info, err := prog.Info()
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(info.Name, prefix) {
		return nil, errNothingToJoin
	}
	ids, _ := info.MapIDs()
	maps := make(map[string]*ebpf.Map)
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			closeMaps(maps)
			return nil, err
		}
		info, err := m.Info()
		if err != nil || maps[info.Name] != nil {
			_ = m.Close()
			continue
		}
		maps[info.Name] = m
	}
	return maps, nil
}

func closeLinks(links []link.Link) error {
	var errs []error
	for _, l := range links {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

func closeMaps(maps map[string]*ebpf.Map) {
	for _, m := range maps {
		_ = m.Close()
	}
}

// linksUsing opens the links that attach programs to the cgroup, or to kernel
// functions and tracepoints where dir is nil, that use one of the maps: every program
// of an attachment that has to do with a cgroup uses its map of sockets or of seats.
func linksUsing(dir *os.File, maps ...*ebpf.Map) (_ []link.Link, err error) {
	var of []ebpf.MapID
	for _, m := range maps {
		if m == nil {
			return nil, errNothingToJoin
		}
		info, err := m.Info()
		if err != nil {
			return nil, err
		}
		id, _ := info.ID()
		of = append(of, id)
	}
	var cgroup uint64
	if dir != nil {
		if cgroup, err = cgroupID(dir); err != nil {
			return nil, err
		}
	}
	var links []link.Link
	defer func() {
		if err != nil {
			for _, l := range links {
				_ = l.Close()
			}
		}
	}()
	it := new(link.Iterator)
	defer it.Close()
	for it.Next() {
		info, err := it.Link.Info()
		if err != nil {
			return nil, err
		}
		if dir == nil && info.Tracing() == nil && info.RawTracepoint() == nil {
			continue
		}
		if cg := info.Cgroup(); dir != nil && (cg == nil || cg.CgroupId != cgroup) {
			continue
		}
		uses, err := programUses(info.Program, of)
		if err != nil {
			return nil, err
		}
		if uses {
			links = append(links, it.Take())
		}
	}
	return links, it.Err()
}

// programUses says whether the program uses one of the maps.
func programUses(id ebpf.ProgramID, maps []ebpf.MapID) (bool, error) {
	prog, err := ebpf.NewProgramFromID(id)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer prog.Close()
	info, err := prog.Info()
	if err != nil {
		return false, err
	}
	ids, _ := info.MapIDs()
	return slices.ContainsFunc(ids, func(id ebpf.MapID) bool { return slices.Contains(maps, id) }), nil
}

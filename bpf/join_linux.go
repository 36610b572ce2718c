// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/internal/abi"
)

var errNothingToJoin = errors.New("nothing to join")

// Names of maps. The kernel keeps 15 bytes of a name, and
// BTF, where it can be read, all of it.
const (
	instanceName  = "sockmeta_inst"
	linksName     = "sockmeta_links"
	slotsName     = "sockmeta_rx"
	socketsName   = "sockmeta_sks"
	flightsName   = "sockmeta_flights"
	connsName     = "sockmeta_conns"
	countName     = "sockmeta_count"
	rawsName      = "sockmeta_raws"
	localDevsName = "sockmeta_local_devs"
	localsName    = "sockmeta_locals"
	seatsName     = "sockmeta_seats"
	roomsName     = "sockmeta_rooms"
	givenName     = "sockmeta_given"
)

// kernelName is what the kernel keeps of a name (BPF_OBJ_NAME_LEN).
func kernelName(name string) string { return name[:min(len(name), 15)] }

// Join takes references to what another process has attached to the cgroup, "" for the
// one of this process, with whatever options: Attachment.Options has them. It is
// ErrNotAttached where there is nothing, or this process may not: it needs
// CAP_SYS_ADMIN (BPF_LINK_GET_FD_BY_ID) beside CAP_BPF and CAP_NET_ADMIN.
func Join(cgroup string) (*Attachment, error) {
	a, err := joinPath(cgroup)
	if err != nil {
		if short := asShortage(err); short != nil {
			err = short
		}
		return nil, fmt.Errorf("sockmeta: join: %w", err)
	}
	register(a.info.Instance, a.slots)
	return a, nil
}

func joinPath(cgroup string) (*Attachment, error) {
	dir, err := openCgroup(cgroup)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	id, err := cgroupID(dir)
	if err != nil {
		return nil, err
	}
	if lock := lockCgroup(id); lock != nil {
		defer lock.Close()
	}
	a, err := join(dir, nil)
	switch {
	case errors.Is(err, errNothingToJoin):
		err = fmt.Errorf("%w: %s (bpf.Attach attaches)", ErrNotAttached, dir.Name())
	case errors.Is(err, unix.EPERM):
		err = fmt.Errorf("%w: %s: %w: needs CAP_SYS_ADMIN, CAP_BPF and CAP_NET_ADMIN", ErrNotAttached, dir.Name(), err)
	}
	return a, err
}

// join finds programs of our ABI that are attached to the cgroup, and takes
// references to their links, so that they outlive whoever attached them. It is
// ErrConflict where there are some, and none has what the options ask for. Without
// options it takes the first.
func join(dir *os.File, opts *Options) (*Attachment, error) {
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

func joinProgram(dir *os.File, id ebpf.ProgramID, opts *Options) (_ *Attachment, err error) {
	maps, err := mapsOfProgram(id, kernelName(getsockoptProgram))
	if err != nil {
		return nil, err
	}
	a := &Attachment{cgroup: dir.Name(), joined: true, maps: maps}
	defer func() {
		if err != nil {
			_ = a.Close()
		}
	}()
	inst, slots, ids := maps[instanceName], maps[slotsName], maps[linksName]
	if inst == nil || slots == nil || ids == nil {
		return nil, errNothingToJoin
	}
	in, err := readInstance(inst)
	if err != nil || in.Info.ABI != abi.ABI {
		return nil, errNothingToJoin
	}
	a.info = in.Info
	if in.Info.Features&abi.FeatureNative == 0 {
		a.missing = fmt.Errorf("%w: whoever attached the programs found no kernel functions for control messages", ErrNotSupported)
	}
	if a.slots, err = mapSlots(slots); err != nil {
		return nil, err
	}
	if err := a.takeLinks(dir, ids); err != nil {
		return nil, err
	}
	if opts != nil {
		err = opts.conflict(&in)
	}
	return a, err
}

// takeLinks takes the links whose ids the map has, and the maps of their programs.
func (a *Attachment) takeLinks(dir *os.File, ids *ebpf.Map) error {
	cgroup, err := cgroupID(dir)
	if err != nil {
		return err
	}
	for i := range uint32(linksWith(a.info.Features)) {
		// It is 0 while they are being attached.
		var id link.ID
		if err := ids.Lookup(i, &id); err != nil || id == 0 {
			return errNothingToJoin
		}
		l, err := link.NewFromID(id)
		if errors.Is(err, os.ErrNotExist) {
			return errNothingToJoin
		}
		if err != nil {
			return fmt.Errorf("link %d: %w", id, err)
		}
		a.links = append(a.links, l)
		info, err := askLink(l)
		if err != nil {
			return fmt.Errorf("link %d: %w", id, err)
		}
		if info.typ == link.CgroupType && info.cgroup != cgroup {
			return errNothingToJoin
		}
		if err := a.takeMaps(info.program); err != nil {
			return err
		}
	}
	return nil
}

func (a *Attachment) takeMaps(of ebpf.ProgramID) error {
	maps, err := mapsOfProgram(of, "")
	if err != nil {
		return err
	}
	for name, m := range maps {
		if a.maps[name] == nil {
			a.maps[name] = m
		} else {
			_ = m.Close()
		}
	}
	return nil
}

// publishLinks lets others join.
func (a *Attachment) publishLinks() error {
	ids := a.maps[linksName]
	for i, l := range a.links {
		info, err := askLink(l)
		if err != nil {
			return fmt.Errorf("links map: %w", err)
		}
		if err := ids.Put(uint32(i), info.id); err != nil {
			return fmt.Errorf("links map: %w", err)
		}
	}
	if err := ids.Freeze(); err != nil {
		return fmt.Errorf("links map: %w", err)
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

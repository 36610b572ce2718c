// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/sockmeta/sockmeta-go/internal/kerneltypes"
)

// An object is the file that has all programs of an attachment (c/sockmeta.bpf.c). Its
// parts are loaded one by one: kernels may lack what some of them need.
type object struct {
	spec  *ebpf.CollectionSpec
	types *btf.Cache
}

func openObject() (*object, error) {
	spec, err := loadSockmeta()
	if err != nil {
		return nil, err
	}
	o := &object{spec: spec, types: kerneltypes.Cache()}
	return o, dropMissing(spec, o.types)
}

// set gives a variable its value, for all parts that are loaded from then on.
func (o *object) set(variable string, value any) error {
	v := o.spec.Variables[variable]
	if v == nil {
		return fmt.Errorf("no variable %s", variable)
	}
	if err := v.Set(value); err != nil {
		return err
	}
	section := o.spec.Maps[v.SectionName]
	if section == nil || len(section.Contents) != 1 {
		return fmt.Errorf("variable %s: no section %s", variable, v.SectionName)
	}
	data, ok := section.Contents[0].Value.([]byte)
	if !ok || len(data) < int(v.Offset+v.Size()) {
		return fmt.Errorf("variable %s is not in section %s", variable, v.SectionName)
	}
	copy(data[v.Offset:], v.Value)
	return nil
}

// isData says whether a map holds variables: each part that is loaded has its own.
func isData(mapName string) bool { return strings.HasPrefix(mapName, ".") }

// makeMaps makes all maps of the object but those that are given, always in one order.
func (o *object) makeMaps(given map[string]*ebpf.Map) (_ map[string]*ebpf.Map, err error) {
	made := make(map[string]*ebpf.Map)
	defer func() {
		if err != nil {
			closeMaps(made)
		}
	}()
	for _, name := range slices.Sorted(maps.Keys(o.spec.Maps)) {
		if isData(name) {
			continue
		}
		if g := given[name]; g != nil {
			made[name], err = g.Clone()
		} else {
			made[name], err = ebpf.NewMap(o.spec.Maps[name])
		}
		if err != nil {
			delete(made, name)
			return nil, fmt.Errorf("map %s: %w", name, err)
		}
	}
	return made, nil
}

// load loads programs by name, in this order, on top of the maps that they use: those that
// are given, and a new one for variables. After an error it returns those that there are.
func (o *object) load(given map[string]*ebpf.Map, names ...string) (map[string]*ebpf.Program, error) {
	programs := make(map[string]*ebpf.Program)
	for _, name := range names {
		p, err := o.loadOne(given, name)
		if err != nil {
			return programs, err
		}
		programs[name] = p
	}
	return programs, nil
}

func (o *object) loadOne(given map[string]*ebpf.Map, name string) (*ebpf.Program, error) {
	p := o.spec.Programs[name]
	if p == nil {
		return nil, fmt.Errorf("no program %s", name)
	}
	// Without the variables: the loader would map each one's memory.
	one := &ebpf.CollectionSpec{
		Maps:      make(map[string]*ebpf.MapSpec),
		Programs:  map[string]*ebpf.ProgramSpec{name: p},
		Types:     o.spec.Types,
		ByteOrder: o.spec.ByteOrder,
	}
	opts := ebpf.CollectionOptions{MapReplacements: make(map[string]*ebpf.Map), Cache: o.types}
	for i := range p.Instructions {
		ins := &p.Instructions[i]
		ref := ins.Reference()
		if !ins.IsLoadFromMap() || one.Maps[ref] != nil {
			continue
		}
		m := o.spec.Maps[ref].Copy()
		if g := given[ref]; g != nil {
			m.MaxEntries = g.MaxEntries()
			opts.MapReplacements[ref] = g
		} else if !isData(ref) {
			return nil, fmt.Errorf("program %s: no map %s", name, ref)
		}
		one.Maps[ref] = m
	}
	c, err := ebpf.NewCollectionWithOptions(one, opts)
	if err != nil {
		return nil, err
	}
	loaded := c.Programs[name]
	delete(c.Programs, name)
	c.Close()
	return loaded, nil
}

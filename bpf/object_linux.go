// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
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

func (o *object) set(variable string, value any) error {
	v := o.spec.Variables[variable]
	if v == nil {
		return fmt.Errorf("no variable %s", variable)
	}
	return v.Set(value)
}

// isData says whether a map holds variables: each part that is loaded has its own.
func isData(mapName string) bool { return strings.HasPrefix(mapName, ".") }

// makeMaps makes all maps of the object but those that are given.
func (o *object) makeMaps(given map[string]*ebpf.Map) (map[string]*ebpf.Map, error) {
	part := &ebpf.CollectionSpec{Maps: make(map[string]*ebpf.MapSpec)}
	for name, m := range o.spec.Maps {
		if !isData(name) {
			part.Maps[name] = m
		}
	}
	c, err := ebpf.NewCollectionWithOptions(part, ebpf.CollectionOptions{MapReplacements: given, Cache: o.types})
	if err != nil {
		return nil, err
	}
	return c.Maps, nil
}

// load loads programs by name, on top of the maps that they use: those that are given,
// and new ones for variables.
func (o *object) load(given map[string]*ebpf.Map, names ...string) (map[string]*ebpf.Program, error) {
	part := &ebpf.CollectionSpec{
		Maps:      make(map[string]*ebpf.MapSpec),
		Programs:  make(map[string]*ebpf.ProgramSpec),
		Variables: make(map[string]*ebpf.VariableSpec),
		Types:     o.spec.Types,
		ByteOrder: o.spec.ByteOrder,
	}
	opts := ebpf.CollectionOptions{MapReplacements: make(map[string]*ebpf.Map), Cache: o.types}
	for _, name := range names {
		p := o.spec.Programs[name]
		if p == nil {
			return nil, fmt.Errorf("no program %s", name)
		}
		part.Programs[name] = p
		for i := range p.Instructions {
			ins := &p.Instructions[i]
			name := ins.Reference()
			if !ins.IsLoadFromMap() || part.Maps[name] != nil {
				continue
			}
			m := o.spec.Maps[name].Copy()
			if g := given[name]; g != nil {
				m.MaxEntries = g.MaxEntries()
				opts.MapReplacements[name] = g
			} else if !isData(name) {
				return nil, fmt.Errorf("program %s: no map %s", p.Name, name)
			}
			part.Maps[name] = m
		}
	}
	for name, v := range o.spec.Variables {
		if part.Maps[v.SectionName] != nil {
			part.Variables[name] = v
		}
	}
	c, err := ebpf.NewCollectionWithOptions(part, opts)
	if err != nil {
		return nil, err
	}
	programs := c.Programs
	c.Programs = nil
	c.Close()
	return programs, nil
}

// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/sockmeta/sockmeta-go/internal/netlab"
)

// attachedMap opens a map of the program that is attached to a cgroup.
func attachedMap(t *testing.T, cg *netlab.Cgroup, typ ebpf.AttachType, name string) *ebpf.Map {
	t.Helper()
	dir, err := os.Open(cg.Path())
	must(t, err)
	defer dir.Close()
	attached, err := link.QueryPrograms(link.QueryOptions{Target: int(dir.Fd()), Attach: typ})
	must(t, err)
	for _, p := range attached.Programs {
		prog, err := ebpf.NewProgramFromID(p.ID)
		must(t, err)
		info, err := prog.Info()
		must(t, err)
		ids, ok := info.MapIDs()
		if !ok {
			t.Fatal("no ids of maps")
		}
		must(t, prog.Close())
		for _, id := range ids {
			m, err := ebpf.NewMapFromID(id)
			must(t, err)
			if info, err := m.Info(); err == nil && info.Name == name[:min(len(name), 15)] {
				t.Cleanup(func() { _ = m.Close() })
				return m
			}
			must(t, m.Close())
		}
	}
	t.Fatalf("no map %s at %s", name, cg.Path())
	return nil
}

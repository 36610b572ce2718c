// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/internal/cgroup2"
)

// ownMemory returns how much memory this process may take, in bytes: the limit of
// its memory cgroup, or else what the host has.
func ownMemory() uint64 {
	limit := uint64(math.MaxUint64)
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		limit = uint64(info.Totalram) * uint64(info.Unit)
	}
	if m, err := cgroup2.Mount(); err == nil {
		if dir, err := cgroup2.Self(); err == nil {
			limit = min(limit, limitOfTree(dir, m.Dir))
		}
	}
	if cgroups, err := os.ReadFile("/proc/self/cgroup"); err == nil {
		limit = min(limit, limitOfV1(string(cgroups)))
	}
	return limit
}

// limitOfTree returns the lowest memory.max from dir up to the root.
func limitOfTree(dir, root string) uint64 {
	limit := uint64(math.MaxUint64)
	for strings.HasPrefix(dir, root) {
		limit = min(limit, numberIn(filepath.Join(dir, "memory.max")))
		if dir == root {
			break
		}
		dir = filepath.Dir(dir)
	}
	return limit
}

// limitOfV1 returns the limit where the memory controller is cgroup v1's, at its usual
// place.
func limitOfV1(cgroups string) uint64 {
	for line := range strings.Lines(cgroups) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 || f[1] != "memory" {
			continue
		}
		stat, err := os.ReadFile(filepath.Join("/sys/fs/cgroup/memory", f[2], "memory.stat"))
		if err != nil {
			// A container shows its own alone, as the root.
			stat, _ = os.ReadFile("/sys/fs/cgroup/memory/memory.stat")
		}
		for line := range strings.Lines(string(stat)) {
			if n, ok := strings.CutPrefix(line, "hierarchical_memory_limit "); ok {
				return parseLimit(n)
			}
		}
	}
	return math.MaxUint64
}

func numberIn(path string) uint64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return math.MaxUint64
	}
	return parseLimit(string(b))
}

// parseLimit takes "max" for no limit.
func parseLimit(s string) uint64 {
	n, err := strconv.ParseUint(strings.TrimSpace(s), 10, 64)
	if err != nil {
		return math.MaxUint64
	}
	return n
}

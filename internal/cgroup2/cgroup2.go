// SPDX-License-Identifier: Apache-2.0

// Package cgroup2 finds the unified cgroup hierarchy and the calling process's
// place in it.
//
// Nothing is assumed about where the hierarchy is mounted: on hybrid hosts it
// is commonly below /sys/fs/cgroup/unified, in containers often only a subtree
// is visible.
package cgroup2

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// ErrNoCgroup2 is matched by the errors of this package that say the process
// has no usable place in a cgroup2 hierarchy: none is mounted, the kernel lacks
// it, or the mounts don't show the process's own cgroup.
var ErrNoCgroup2 = errors.New("no usable cgroup2 hierarchy")

// MountPoint is one place at which the cgroup2 hierarchy is mounted.
type MountPoint struct {
	// Dir is the directory it's mounted on.
	Dir string
	// Root is the cgroup that appears at Dir, as seen from the calling
	// process's cgroup namespace. It is "/" for a mount of everything the
	// namespace contains.
	Root string
}

// Mount returns the cgroup2 mount through which the calling process's own
// cgroup is reachable. Where several qualify, it's the one showing most of the
// hierarchy.
func Mount() (MountPoint, error) {
	m, _, err := self()
	return m, err
}

// Self returns the absolute directory of the calling process's own cgroup.
func Self() (string, error) {
	_, dir, err := self()
	return dir, err
}

func self() (MountPoint, string, error) {
	mountinfo, err := readProc("/proc/self/mountinfo")
	if err != nil {
		return MountPoint{}, "", err
	}
	cgroups, err := readProc("/proc/self/cgroup")
	if err != nil {
		return MountPoint{}, "", err
	}

	mounts := parseMounts(mountinfo)
	if len(mounts) == 0 {
		return MountPoint{}, "", fmt.Errorf("cgroup2: not mounted: %w", ErrNoCgroup2)
	}
	own, ok := parseOwn(cgroups)
	if !ok {
		return MountPoint{}, "", fmt.Errorf("cgroup2: /proc/self/cgroup has no unified entry: %w", ErrNoCgroup2)
	}
	m, dir, ok := locate(mounts, own)
	if !ok {
		return MountPoint{}, "", fmt.Errorf("cgroup2: own cgroup %q lies outside what is mounted at %q: %w", own, mounts[0].Dir, ErrNoCgroup2)
	}
	return m, dir, nil
}

func readProc(name string) (string, error) {
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("cgroup2: %w: %w", err, ErrNoCgroup2)
	}
	if err != nil {
		return "", fmt.Errorf("cgroup2: %w", err)
	}
	return string(b), nil
}

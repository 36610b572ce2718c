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
	cgroups, err := readProc("/proc/self/cgroup")
	if err != nil {
		return MountPoint{}, "", err
	}
	own, ok := parseOwn(cgroups)
	if !ok {
		return MountPoint{}, "", fmt.Errorf("cgroup2: /proc/self/cgroup has no unified entry: %w", ErrNoCgroup2)
	}
	mountinfo, err := readProc("/proc/self/mountinfo")
	if err != nil {
		return MountPoint{}, "", err
	}
	mounts := parseMounts(mountinfo)
	if m, dir, ok := locate(mounts, own); ok {
		return m, dir, nil
	}
	// ip netns exec mounts a new /sys over the one that has it.
	m, dir, initErr := throughInit(own)
	if initErr == nil {
		return m, dir, nil
	}
	m, err = detachedMount()
	if err == nil {
		if m, dir, ok := locate([]MountPoint{m}, own); ok {
			return m, dir, nil
		}
		err = errors.New("it is outside of this cgroup namespace")
	}
	if len(mounts) != 0 {
		return MountPoint{}, "", fmt.Errorf("cgroup2: own cgroup %q lies outside what is mounted at %q, and is to be had neither from process 1 (%w) nor by a mount (%w): %w", own, mounts[0].Dir, initErr, err, ErrNoCgroup2)
	}
	return MountPoint{}, "", fmt.Errorf("cgroup2: not mounted in this mount namespace, though the process is in cgroup %q, which is to be had neither from process 1 (%w) nor by a mount (%w); ip netns exec gives programs a new /sys without it, nsenter --net=/run/netns/NAME leaves it: %w", own, initErr, err, ErrNoCgroup2)
}

// init1 is where process 1 has what is mounted, for those who may look there.
const init1 = "/proc/1/root"

// throughInit finds the cgroup where process 1 has it mounted.
func throughInit(own string) (MountPoint, string, error) {
	// The kernel shows the mounts' roots as the reader's cgroup namespace has them.
	mountinfo, err := os.ReadFile("/proc/1/mountinfo")
	if err != nil {
		return MountPoint{}, "", err
	}
	m, dir, ok := locate(parseMounts(string(mountinfo)), own)
	if !ok {
		return MountPoint{}, "", errors.New("it does not have it mounted")
	}
	m.Dir, dir = init1+m.Dir, init1+dir
	if _, err := os.Stat(dir); err != nil {
		return MountPoint{}, "", err
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

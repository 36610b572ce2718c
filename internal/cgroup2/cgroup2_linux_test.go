// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cgroup2

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSelf(t *testing.T) {
	dir, err := Self()
	if errors.Is(err, ErrNoCgroup2) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}

	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	if st.Type != unix.CGROUP2_SUPER_MAGIC {
		t.Errorf("%s isn't on cgroup2 but on %#x", dir, st.Type)
	}
	procs, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains("\n"+string(procs), "\n"+strconv.Itoa(os.Getpid())+"\n") {
		t.Errorf("%s doesn't list this process", dir)
	}

	m, err := Mount()
	if err != nil {
		t.Fatal(err)
	}
	if rel, err := filepath.Rel(m.Dir, dir); err != nil || strings.HasPrefix(rel, "..") {
		t.Errorf("%s isn't below the mount %s", dir, m.Dir)
	}
}

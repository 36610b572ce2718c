// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"math"
	"os"
	"path/filepath"
	"testing"
)

// TestLetInDefaultBounds has as many sockets by default as fit into the memory that
// there is, with room for the process itself.
func TestLetInDefaultBounds(t *testing.T) {
	for _, tt := range []struct {
		memory, receiveMap uint64
		want               uint32
	}{
		{64 << 20, 3 << 20, 2082},
		{64 << 20, 25 << 20, 1331},
		{16 << 20, 25 << 20, minSockets},
		{0, 0, minSockets},
		{16 << 30, 25 << 20, 558387},
		{math.MaxUint64, 0, maxSockets},
	} {
		got := defaultMaxSockets(tt.memory, tt.receiveMap)
		if got != tt.want {
			t.Errorf("%d bytes, %d of them slots: %d sockets, want %d", tt.memory, tt.receiveMap, got, tt.want)
		}
		if used := uint64(got) * socketMemory; got > minSockets && used > tt.memory/memoryShare {
			t.Errorf("%d bytes: sockets may take %d", tt.memory, used)
		}
	}
	for _, o := range []Options{{MaxSockets: -1}, {MaxSocketsPerUser: -1}} {
		if err := o.checkBounds(); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
}

// TestLetInMemoryLimit has the lowest limit of a tree of cgroups.
func TestLetInMemoryLimit(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "a", "b")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for path, limit := range map[string]string{"a": "67108864\n", "a/b": "max\n"} {
		if err := os.WriteFile(filepath.Join(root, path, "memory.max"), []byte(limit), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := limitOfTree(dir, root); got != 64<<20 {
		t.Errorf("%d", got)
	}
	if got := limitOfTree(root, root); got != math.MaxUint64 {
		t.Errorf("the root's is %d", got)
	}
	if got := ownMemory(); got == 0 || got == math.MaxUint64 {
		t.Errorf("own memory is %d", got)
	}
}

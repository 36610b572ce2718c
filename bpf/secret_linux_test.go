// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/internal/abi"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
)

// shareAtOnce has several processes-to-be ask for the host's record at once, each with
// one of its own, and returns what they agree on.
func shareAtOnce(t *testing.T, dirs []string, file string) abi.Host {
	t.Helper()
	var all [16]abi.Host
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() {
			fresh, err := newHostRecord()
			if err != nil {
				t.Error(err)
			}
			all[i] = shareRecord(fresh, dirs, file)
		})
	}
	wg.Wait()
	for _, h := range all {
		if h != all[0] || !isSet(h) {
			t.Fatal("they do not agree")
		}
	}
	return all[0]
}

func mountBPFFS(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, "mode=0700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, 0) })
	return dir
}

// TestTruthAnchorSecret has the processes of a host agree on one secret, wherever they
// find it.
func TestTruthAnchorSecret(t *testing.T) {
	testutil.RequireRoot(t)
	t.Run("bpffs", func(t *testing.T) {
		dir, file := mountBPFFS(t), filepath.Join(t.TempDir(), "secret")
		h := shareAtOnce(t, []string{dir}, file)
		if again := shareAtOnce(t, []string{dir}, file); again != h {
			t.Error("those who come later have another")
		}
		st, err := os.Stat(filepath.Join(dir, secretName))
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("pin: %v, %v", st, err)
		}
		if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("it is in a file, too: %v", err)
		}
	})
	t.Run("empty map of a producer in C", func(t *testing.T) {
		dir := mountBPFFS(t)
		spec, err := loadProducer()
		if err != nil {
			t.Fatal(err)
		}
		m, err := ebpf.NewMap(spec.Maps[secretName])
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		if err := m.Pin(filepath.Join(dir, secretName)); err != nil {
			t.Fatal(err)
		}
		h := shareAtOnce(t, []string{dir}, filepath.Join(t.TempDir(), "secret"))
		var got abi.Host
		if err := m.Lookup(uint32(0), &got); err != nil || got != h {
			t.Errorf("the producer has another: %v", err)
		}
	})
	t.Run("file, then bpffs", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "secret")
		h := shareAtOnce(t, nil, file)
		st, err := os.Stat(file)
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("file: %v, %v", st, err)
		}
		if later := shareAtOnce(t, []string{mountBPFFS(t)}, file); later != h {
			t.Error("those who find a bpffs have another")
		}
	})
	t.Run("open to others", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "secret")
		h := shareAtOnce(t, nil, file)
		if err := os.Chmod(file, 0o644); err != nil {
			t.Fatal(err)
		}
		fresh, err := newHostRecord()
		if err != nil {
			t.Fatal(err)
		}
		if got := shareRecord(fresh, nil, file); got == h {
			t.Error("took a secret that all can read")
		}
	})
}

// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/internal/cgroup2"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
)

func init() {
	children["faultNoBTF"] = func() error { return plainSockets("BTF", 0) }
	children["faultNoCgroup2"] = func() error { return plainSockets("mount a cgroup v2 hierarchy", 0) }
	children["faultNoBpffs"] = faultNoBpffs
}

// TestFaultMounts opens sockets where what the kernel usually has in its file systems
// is missing.
func TestFaultMounts(t *testing.T) {
	testutil.RequireRoot(t)
	for _, tt := range []struct {
		name, child string
		mounts      func() error
		drop        []uintptr
	}{
		{"no BTF", "faultNoBTF", func() error { return hide("/sys/kernel/btf", "/boot", "/lib/modules", "/usr/lib/modules") }, nil},
		// By these it would find the cgroup where process 1 has it mounted, or mount it.
		{"cgroup v1 only", "faultNoCgroup2", func() error { return unmountAll("cgroup2") }, []uintptr{unix.CAP_SYS_PTRACE, unix.CAP_SYS_ADMIN}},
		{"no bpffs", "faultNoBpffs", func() error { return unmountAll("bpf") }, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			testutil.Leaks(t)
			ns := testutil.Namespace(t)
			bareCgroup(t)
			out, err := testutil.RunChild(t, tt.child, testutil.ChildOptions{
				Netns: ns, Mounts: tt.mounts, Env: []string{pinEnv + "=" + t.TempDir()},
				DropCaps: tt.drop,
			})
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// TestCgroup1Sockets opens sockets on a machine that has no cgroup v2 at all.
func TestCgroup1Sockets(t *testing.T) {
	if _, err := cgroup2.Self(); !errors.Is(err, cgroup2.ErrNoCgroup2) {
		t.Skip("this machine has cgroup v2")
	}
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	out, err := testutil.RunChild(t, "faultNoCgroup2", testutil.ChildOptions{Netns: testutil.Namespace(t)})
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// hide mounts nothing over the directories that there are.
func hide(dirs ...string) error {
	for _, dir := range dirs {
		if err := unix.Mount("none", dir, "tmpfs", 0, ""); err != nil && err != unix.ENOENT {
			return fmt.Errorf("mount over %s: %w", dir, err)
		}
	}
	return nil
}

// unmountAll takes away all that is of a file system, what was mounted last first.
func unmountAll(kind string) error {
	mountinfo, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return err
	}
	lines := strings.Split(string(mountinfo), "\n")
	slices.Reverse(lines)
	for _, line := range lines {
		mount, source, ok := strings.Cut(line, " - ")
		if !ok || !strings.HasPrefix(source, kind+" ") {
			continue
		}
		if err := unix.Unmount(strings.Fields(mount)[4], unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", line, err)
		}
	}
	return nil
}

// pinEnv has a directory that is not on a bpffs.
const pinEnv = "SOCKMETA_TEST_PIN"

// faultNoBpffs does what needs none, and fails to do what does.
func faultNoBpffs() error {
	a, err := bpf.Attach(bpf.Options{})
	if err != nil {
		return err
	}
	defer a.Close()
	if err := verifyLoopback(); err != nil {
		return err
	}
	parent := os.Getenv(pinEnv)
	there := filepath.Join(parent, "there")
	if err := os.Mkdir(there, 0o700); err != nil {
		return err
	}
	for _, dir := range []string{there, filepath.Join(parent, "new")} {
		if err := a.PinMaps(dir); err == nil || !strings.Contains(err.Error(), "bpffs") {
			return fmt.Errorf("pin in %s: %v", dir, err)
		}
	}
	if entries, err := os.ReadDir(there); err != nil || len(entries) != 0 {
		return fmt.Errorf("left in the directory: %v, %v", entries, err)
	}
	if _, err := os.Stat(filepath.Join(parent, "new")); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("the directory that was made: %v", err)
	}
	if err := a.PinMaps(filepath.Join(parent, "no", "parent")); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("pin below what is not there: %v", err)
	}
	// The maps are as good as before.
	if _, err := a.Counts(); err != nil {
		return err
	}
	return verifyLoopback()
}

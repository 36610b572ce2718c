// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
)

// client32 returns the program of that name, open, built here for a 32-bit
// architecture that this machine runs as well unless it is installed.
func client32(t *testing.T) *os.File {
	t.Helper()
	arch, ok := map[string]string{"amd64": "386", "arm64": "arm"}[runtime.GOARCH]
	if !ok {
		t.Skipf("no 32-bit processes on %s", runtime.GOARCH)
	}
	path, err := exec.LookPath("client32")
	if err != nil {
		path = filepath.Join(t.TempDir(), "client32")
		cmd := exec.CommandContext(t.Context(), "go", "build", "-o", path, "./client32")
		cmd.Env = append(os.Environ(), "GOARCH="+arch, "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	f, err := os.Open(path)
	must(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// TestCompat has 32-bit processes, whose sockets the programs cannot answer, in a
// cgroup with programs and in one without: their sockets are plain ones, and say why.
func TestCompat(t *testing.T) {
	testutil.RequireRoot(t)
	program := client32(t)
	for _, tt := range []struct {
		name     string
		attached bool
		attr     *syscall.SysProcAttr
	}{
		{"attached, root", true, &syscall.SysProcAttr{}},
		{"attached, nobody", true, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}},
		{"alone", false, &syscall.SysProcAttr{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			testutil.Leaks(t)
			ns := testutil.Namespace(t)
			bareCgroup(t)
			if tt.attached {
				a, err := bpf.Attach(bpf.Options{})
				must(t, err)
				defer a.Close()
			}
			var out []byte
			err := ns.Do(func() (err error) {
				// Others may not come by where it was built.
				cmd := exec.CommandContext(t.Context(), "/proc/self/fd/3")
				cmd.ExtraFiles = []*os.File{program}
				cmd.SysProcAttr = tt.attr
				out, err = cmd.CombinedOutput()
				return err
			})
			if errors.Is(err, unix.ENOEXEC) {
				t.Skipf("the kernel runs no 32-bit programs (CONFIG_IA32_EMULATION, CONFIG_COMPAT): %v", err)
			}
			if err != nil || !strings.Contains(string(out), "32 bits") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

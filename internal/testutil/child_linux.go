// SPDX-License-Identifier: Apache-2.0

package testutil

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/internal/kerneltypes"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
)

const (
	childEnv = "SOCKMETA_TEST_CHILD"
	nobody   = 65534

	// firstFile is the first descriptor after standard input, output and
	// error.
	firstFile = 3
)

var children map[string]func() error

// Main is to be called by TestMain. It runs the tests, or in a process that was
// started by RunChild the function named there.
func Main(m *testing.M, functions map[string]func() error) {
	if name, ok := os.LookupEnv(childEnv); ok {
		f, ok := functions[name]
		if !ok {
			fmt.Fprintf(os.Stderr, "testutil: no child function %q\n", name)
			os.Exit(2)
		}
		flag.Parse()
		if err := f(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	children = functions
	kerneltypes.Keep()
	os.Exit(m.Run())
}

// ChildOptions says how a child process differs from the test process. The
// zero value says it doesn't.
type ChildOptions struct {
	// UID and GID are what the child runs as, with no supplementary groups
	// but Groups. If UID isn't zero the child has no capabilities but KeepCaps.
	UID, GID uint32
	// KeepCaps, if not nil, are all the capabilities left to the child.
	KeepCaps []uintptr
	// DropCaps are capabilities the child has to do without.
	DropCaps []uintptr
	// NoNewPrivs keeps the child from gaining privileges by execve.
	NoNewPrivs bool
	// Groups are the child's supplementary groups.
	Groups []uint32
	// Container makes the child root, with all capabilities, of a user, a
	// network and a mount namespace of its own, and nobody outside. UID and GID
	// have no meaning then. See RequireContainers.
	Container bool
	// Cgroup, if not empty, is the cgroup directory the child starts in.
	Cgroup string
	// Netns, if not nil, is the network namespace the child starts in.
	Netns *netlab.Namespace
	// Mounts, if not nil, changes what is mounted where the child is, in a mount
	// namespace of its own.
	Mounts func() error
	// Files are open in the child, which gets them from ChildFile.
	Files []*os.File
	// Env is added to the environment, in the form "key=value".
	Env []string
}

// RunChild runs a function that TestMain has registered with Main in a process
// of its own and returns what that wrote to its standard output and error. The
// error says how the process ended, unless the function returned nil.
//
// Conditions that prevent the process from being started fail the test. The
// process is killed if it outlives the test.
func RunChild(t testing.TB, name string, opts ChildOptions) ([]byte, error) {
	t.Helper()
	if _, ok := children[name]; !ok {
		t.Fatalf("testutil: no child function %q; TestMain has to register it with Main", name)
	}

	// A directory above the test binary may be closed to the child's user,
	// so the child executes an open file rather than a path.
	exe, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer exe.Close()

	files := append(slices.Clip(opts.Files), exe)
	path := fmt.Sprintf("/proc/self/fd/%d", firstFile+len(files)-1)
	cmd := exec.CommandContext(t.Context(), path)
	cmd.Args = []string{os.Args[0], fmt.Sprintf("-test.short=%v", testing.Short())}
	cmd.ExtraFiles = files
	// The race detector makes a process wait a second before it exits.
	cmd.Env = append(os.Environ(), "GORACE="+os.Getenv("GORACE")+" atexit_sleep_ms=10")
	cmd.Env = append(append(cmd.Env, opts.Env...), childEnv+"="+name)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if opts.UID != 0 || opts.GID != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: opts.UID, Gid: opts.GID, Groups: opts.Groups}
	}
	if opts.Container {
		contain(cmd.SysProcAttr)
	}
	if opts.UID != 0 {
		cmd.SysProcAttr.AmbientCaps = opts.KeepCaps
	}
	if opts.Cgroup != "" {
		dir, err := os.Open(opts.Cgroup)
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		cmd.SysProcAttr.UseCgroupFD = true
		cmd.SysProcAttr.CgroupFD = int(dir.Fd())
	}

	var out []byte
	var runErr error
	err = onThrowawayThread(func() error {
		if err := opts.restrictThread(); err != nil {
			return err
		}
		// The thread has to stay until the child is done, as its end
		// is what Pdeathsig means by the parent's death.
		out, runErr = cmd.CombinedOutput()
		if cmd.Process == nil {
			return runErr
		}
		return nil
	})
	if err != nil {
		t.Fatalf("testutil: start child %s: %v", name, err)
	}
	return out, runErr
}

// ChildCommand returns a command that runs a function, which TestMain has registered
// with Main, in a process of its own: for child processes that start others.
func ChildCommand(name string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"="+name)
	return cmd
}

// Unprivileged runs a function like RunChild does, as a user without any
// privileges or a way to get some. The test fails if the function does. The
// output is returned.
func Unprivileged(t testing.TB, name string, files ...*os.File) []byte {
	t.Helper()
	RequireRoot(t, unix.CAP_SETUID, unix.CAP_SETGID, unix.CAP_SETPCAP)
	out, err := RunChild(t, name, ChildOptions{UID: nobody, GID: nobody, NoNewPrivs: true, Files: files})
	if err != nil {
		t.Fatalf("child %s: %v\n%s", name, err, out)
	}
	return out
}

// ChildFile returns, in a child process, the i-th of ChildOptions.Files.
func ChildFile(i int) *os.File {
	return os.NewFile(uintptr(firstFile+i), fmt.Sprintf("file %d of the parent", i))
}

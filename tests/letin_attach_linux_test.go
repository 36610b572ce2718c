// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/internal/cgroup2"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

func init() {
	children["letInCgroups"] = letInCgroups
	children["letInDescriptors"] = letInDescriptors
	children["letInShortages"] = letInShortages
	children["letInLocker"] = letInLocker
	children["letInHiddenCgroup"] = verifyLoopback
}

func enterCgroup(dir string) error {
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0)
}

func countFiles() (int, error) {
	fds, err := os.ReadDir("/proc/self/fd")
	return len(fds), err
}

// TestLetInCgroupAnew has a process make sockets in cgroups that are removed and made
// anew: it has metadata in each, and keeps nothing of those that are gone.
func TestLetInCgroupAnew(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	cg := testutil.Cgroup(t)
	out, err := testutil.RunChild(t, "letInCgroups", testutil.ChildOptions{Netns: testutil.Namespace(t), Cgroup: cg.Path()})
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func letInCgroups() (err error) {
	base, err := cgroup2.Self()
	if err != nil {
		return err
	}
	visit := func(name string, keep bool) error {
		dir := filepath.Join(base, name)
		err := os.Mkdir(dir, 0o755)
		if err == nil {
			err = enterCgroup(dir)
		}
		if err == nil {
			err = verifyLoopback()
		}
		err = errors.Join(err, enterCgroup(base))
		if !keep {
			err = errors.Join(err, os.Remove(dir))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}
	// Of one path, which is another cgroup's each time.
	for range 2 {
		if err := visit("x", false); err != nil {
			return err
		}
	}
	few, err := countFiles()
	if err != nil {
		return err
	}
	for i := range 8 {
		if err := visit(fmt.Sprint("y", i), false); err != nil {
			return err
		}
	}
	// The kernel detaches on its own time, and closing waits for the next socket.
	for end := time.Now().Add(udpPatience); ; time.Sleep(10 * time.Millisecond) {
		if err := visit("z", false); err != nil {
			return err
		}
		if n, err := countFiles(); err != nil || n <= few+40 {
			if err != nil {
				return err
			}
			break
		} else if time.Now().After(end) {
			return fmt.Errorf("%d files after those of cgroups that are gone, %d before", n, few)
		}
	}
	if testing.Short() {
		return nil
	}
	// Of those that stay there are so many, too.
	const alive = 40
	defer func() {
		for i := range alive {
			err = errors.Join(err, os.Remove(filepath.Join(base, fmt.Sprint("a", i))))
		}
	}()
	most := 0
	for i := range alive {
		if err := visit(fmt.Sprint("a", i), true); err != nil {
			return err
		}
		n, err := countFiles()
		if err != nil {
			return err
		}
		if i < 34 {
			most = max(most, n)
		} else if n > most {
			return fmt.Errorf("%d files in the cgroup %d, %d before", n, i, most)
		}
	}
	return nil
}

// TestLetInDescriptors makes the first socket of a process without descriptors to
// attach by: the error names the limit, and the next socket, when there are some, has
// metadata.
func TestLetInDescriptors(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	ns := testutil.Namespace(t)
	for _, limit := range []string{"10", "14", "20", "24", "30", "40", "60"} {
		t.Run(limit, func(t *testing.T) {
			cg := testutil.Cgroup(t)
			out, err := testutil.RunChild(t, "letInDescriptors", testutil.ChildOptions{Netns: ns, Cgroup: cg.Path(), Env: []string{limitEnv + "=" + limit}})
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

const limitEnv = "SOCKMETA_TEST_LIMIT"

func letInDescriptors() error {
	var few, plenty unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &plenty); err != nil {
		return err
	}
	few = plenty
	if _, err := fmt.Sscan(os.Getenv(limitEnv), &few.Cur); err != nil {
		return err
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		return err
	}
	c, _, err := loopback()
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Support().Err(); !errors.Is(err, unix.EMFILE) || !errors.Is(err, sockmeta.ErrNotSupported) || !strings.Contains(err.Error(), "RLIMIT_NOFILE") {
		return fmt.Errorf("support is %v", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &plenty); err != nil {
		return err
	}
	return verifyLoopback()
}

// TestLetInShortages lets each step of attaching fail for want of something: the error
// says so, and nothing else, and the next attempt attaches.
func TestLetInShortages(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	ns := testutil.Namespace(t)
	testutil.EnterCgroup(t)
	runFault(t, "letInShortages", ns)
}

func letInShortages() error {
	var sab saboteur
	if err := testutil.JudgeCalls(sab.judge, unix.SYS_BPF, unix.SYS_MMAP); err != nil {
		return err
	}
	attach := func() (io.Closer, error) { return closer(bpf.Attach(bpf.Options{})) }
	var steps []step
	for range 2 {
		c, got, err := sab.try(attach, nothing, 0)
		if err != nil {
			return err
		}
		if steps = got; c.Close() != nil {
			return errors.New("close")
		}
	}
	errnos := []unix.Errno{unix.ENOMEM, unix.EMFILE, unix.ENFILE}
	for at, is := range steps {
		if !worthTrying(steps, at, false) || testing.Short() && at%2 == 1 {
			continue
		}
		errno := errnos[at%len(errnos)]
		c, _, err := sab.try(attach, at, errno)
		if err == nil {
			if err := c.Close(); err != nil {
				return err
			}
			continue
		}
		if !errors.Is(err, errno) || !strings.Contains(err.Error(), "no metadata for now") ||
			strings.Contains(err.Error(), "requires >=") || strings.Contains(err.Error(), "locked down") {
			return fmt.Errorf("step %d, %s, fails with %q: %w", at, is, errno, err)
		}
		if c, _, err = sab.try(attach, nothing, 0); err != nil {
			return fmt.Errorf("after step %d: %w", at, err)
		}
		if err := c.Close(); err != nil {
			return err
		}
	}
	// What the first socket is refused the next one is not.
	sab.begin(sabotage{on: true, errno: unix.ENOMEM, always: func(s step) bool { return s.bpf.Cmd == unix.BPF_MAP_CREATE }})
	if _, err := bpf.AttachOwn(); !errors.Is(err, unix.ENOMEM) {
		return fmt.Errorf("without memory: %v", err)
	}
	sab.begin(sabotage{})
	return verifyLoopback()
}

// TestLetInLocks attaches while a user locks the cgroup's directory: it does not wait.
func TestLetInLocks(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	cg := testutil.Cgroup(t)
	attach := func() time.Duration {
		begin := time.Now()
		a, err := bpf.Attach(bpf.Options{Cgroup: cg.Path()})
		took := time.Since(begin)
		must(t, err)
		must(t, a.Close())
		return took
	}
	attach() // to know the kernel
	free := attach()
	dir, err := os.Open(cg.Path())
	must(t, err)
	defer dir.Close()
	// As any user may, who has opened it.
	testutil.Unprivileged(t, "letInLocker", dir)
	locked := attach()
	for range 2 { // the best of three
		locked = min(locked, attach())
	}
	if locked > 5*free {
		t.Errorf("attaching took %v, %v while another user locked the directory", free, locked)
	}
}

// letInLocker locks the file that it was given, which stays locked as long as that is
// open anywhere, and finds that it cannot open the lock of attachers.
func letInLocker() error {
	if err := unix.Flock(int(testutil.ChildFile(0).Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return err
	}
	for _, flags := range []int{os.O_RDONLY, os.O_WRONLY, os.O_RDWR} {
		if f, err := os.OpenFile("/run/sockmeta.lock", flags, 0); err == nil {
			_ = f.Close()
			return errors.New("the lock of attachers is anybody's")
		}
	}
	return nil
}

// TestLetInConflict asks an attachment that is there for other options.
func TestLetInConflict(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	cg := testutil.Cgroup(t)
	has := bpf.Options{Cgroup: cg.Path(), SlotsPerCPU: 64, Policy: &bpf.Policy{MarkMask: 0xf0, MaxPriority: 7, LaunchTimes: true, LocalKeys: []uint8{16}}}
	a, err := bpf.Attach(has)
	must(t, err)
	defer a.Close()
	for _, opts := range []bpf.Options{
		{Policy: has.Policy}, has,
	} {
		opts.Cgroup = cg.Path()
		b, err := bpf.Attach(opts)
		if err != nil || !b.Shared() {
			t.Errorf("%+v: %v", opts, err)
			continue
		}
		must(t, b.Close())
	}
	for _, tt := range []struct {
		opts bpf.Options
		want []string
	}{
		{bpf.Options{}, []string{"mark mask 0xf0, asked for 0x0", "priorities up to 7, asked for 6", "local keys [16], asked for []"}},
		{bpf.Options{SlotsPerCPU: 128}, []string{"slots a CPU 64, asked for 128"}},
		{bpf.Options{Policy: &bpf.Policy{MarkMask: 0x10, MaxPriority: 7, LaunchTimes: true, LocalKeys: []uint8{16}}}, []string{"mark mask 0xf0, asked for 0x10"}},
		{bpf.Options{Policy: &bpf.Policy{}}, []string{"mark mask 0xf0, asked for 0x0", "priorities up to 7, asked for 0", "launch times allowed: true, asked for false"}},
		{bpf.Options{SlotsPerCPU: 16, Tracing: true}, []string{"slots a CPU"}},
	} {
		tt.opts.Cgroup = cg.Path()
		b, err := bpf.Attach(tt.opts)
		if err == nil {
			must(t, b.Close())
		}
		if !errors.Is(err, bpf.ErrConflict) || errors.Is(err, bpf.ErrNotSupported) {
			t.Errorf("%+v: %v", tt.opts, err)
			continue
		}
		for _, want := range tt.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%v does not say %q", err, want)
			}
		}
		tt.opts.Private = true
		tt.opts.Tracing = false
		b, err = bpf.Attach(tt.opts)
		must(t, err)
		must(t, b.Close())
	}
}

// TestLetInMessages names the wrong things to attach to and to pin in.
func TestLetInMessages(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	lab := newGrantLab(t)
	plain := t.TempDir()
	attach := func(path string) error {
		a, err := bpf.Attach(bpf.Options{Cgroup: path})
		if err == nil {
			_ = a.Close()
		}
		return err
	}
	grant := func(path string) error { return lab.attachment.GrantReceiveMap(bpf.Grant{Path: path}) }
	for _, tt := range []struct {
		err  error
		want string
	}{
		{attach(plain), "is not a cgroup"},
		{attach(filepath.Join(lab.attachment.Cgroup(), "cgroup.procs")), "not a directory"},
		{grant(filepath.Join(lab.dir, "a.b")), "dots"},
		{grant(filepath.Join(plain, "rx")), "bpffs"},
		{lab.attachment.PinMaps(filepath.Join(lab.dir, "a.b")), "dots"},
	} {
		if tt.err == nil || !strings.Contains(tt.err.Error(), tt.want) || errors.Is(tt.err, bpf.ErrNotSupported) {
			t.Errorf("%v, want %q", tt.err, tt.want)
		}
	}
}

// TestLetInHiddenCgroup attaches where the cgroup is not mounted, as under ip netns
// exec, which mounts a new /sys.
func TestLetInHiddenCgroup(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	ns := testutil.Namespace(t)
	testutil.EnterCgroup(t)
	hidden := func() error { return unmountAll("cgroup2") }
	out, err := testutil.RunChild(t, "letInHiddenCgroup", testutil.ChildOptions{Netns: ns, Mounts: hidden})
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	out, err = testutil.RunChild(t, "faultNoCgroup2", testutil.ChildOptions{
		Netns: ns, Mounts: hidden, DropCaps: []uintptr{unix.CAP_SYS_PTRACE, unix.CAP_SYS_ADMIN},
	})
	if err != nil {
		t.Errorf("without the capabilities to get at it: %v\n%s", err, out)
	}
}

// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

func init() {
	children["isolationReach"] = isolationReach
	children["containerAttached"] = func() error { return withLoopback(containerAttached) }
	children["containerAlone"] = func() error { return withLoopback(containerAlone) }
}

const (
	victimEnv = "SOCKMETA_TEST_VICTIM"
	mapEnv    = "SOCKMETA_TEST_MAP"
	memoryEnv = "SOCKMETA_TEST_MEMORY"
)

// reaches are the ways to the victim's memory and maps other than its sockets. Each
// returns nil where it leads there.
var reaches = []struct {
	name string
	try  func() error
}{
	{"map by its number", func() error {
		m, err := ebpf.NewMapFromID(ebpf.MapID(envNumber(mapEnv)))
		if err == nil {
			err = m.Close()
		}
		return err
	}},
	{"a program by its number", func() error {
		id, err := ebpf.ProgramGetNextID(0)
		if err != nil {
			return err
		}
		p, err := ebpf.NewProgramFromID(id)
		if err == nil {
			err = p.Close()
		}
		return err
	}},
	{"links", func() error {
		it := new(link.Iterator)
		defer it.Close()
		if it.Next() {
			return nil
		}
		return fmt.Errorf("no link: %w", it.Err())
	}},
	{"pin", func() error {
		m, err := ebpf.LoadPinnedMap(os.Getenv(grantEnv), nil)
		if err == nil {
			err = m.Close()
		}
		return err
	}},
	{"pin, to read", func() error {
		m, err := ebpf.LoadPinnedMap(os.Getenv(grantEnv), &ebpf.LoadPinOptions{ReadOnly: true})
		if err == nil {
			err = m.Close()
		}
		return err
	}},
	{"/proc/PID/fd", func() error { return hasLink("fd", "anon_inode:bpf-map") }},
	{"/proc/PID/map_files", func() error { return hasLink("map_files", "") }},
	{"/proc/PID/mem", func() error {
		f, err := os.Open(fmt.Sprintf("/proc/%d/mem", envNumber(victimEnv)))
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.ReadAt(make([]byte, 8), int64(envNumber(memoryEnv)))
		return err
	}},
	{"process_vm_readv", func() error {
		b := make([]byte, 8)
		local := []unix.Iovec{{Base: &b[0]}}
		local[0].SetLen(len(b))
		remote := []unix.RemoteIovec{{Base: uintptr(envNumber(memoryEnv)), Len: len(b)}}
		_, err := unix.ProcessVMReadv(int(envNumber(victimEnv)), local, remote, 0)
		return err
	}},
	{"pidfd_getfd", func() error {
		pidfd, err := unix.PidfdOpen(int(envNumber(victimEnv)), 0)
		if err != nil {
			return err
		}
		defer unix.Close(pidfd)
		for fd := range 256 {
			got, gerr := unix.PidfdGetfd(pidfd, fd, 0)
			if gerr == nil {
				return unix.Close(got)
			}
			if gerr != unix.EBADF {
				err = gerr
			}
		}
		return err
	}},
	{"attaching", func() error {
		a, err := bpf.Attach(bpf.Options{})
		if err == nil {
			err = a.Close()
		}
		return err
	}},
	{"attaching privately", func() error {
		a, err := bpf.Attach(bpf.Options{Private: true})
		if err == nil {
			err = a.Close()
		}
		return err
	}},
}

func hasLink(dir, to string) error {
	return hasLinkOf(strconv.FormatUint(envNumber(victimEnv), 10), dir, to)
}

// hasLinkOf looks for a link that leads to something in a directory of a process.
func hasLinkOf(pid, dir, to string) error {
	dir = filepath.Join("/proc", pid, dir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if got, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && strings.HasPrefix(got, to) {
			return nil
		}
	}
	return errors.New("no such link")
}

// isolationReach prints which of the ways lead somewhere.
func isolationReach() error {
	// It has inherited nothing.
	if err := hasLinkOf("self", "fd", "anon_inode:bpf"); err == nil {
		return errors.New("a descriptor of the victim's is open")
	}
	for _, r := range reaches {
		if err := r.try(); err == nil {
			fmt.Println("reached:", r.name)
		} else {
			fmt.Printf("%s: %v\n", r.name, err)
		}
	}
	return nil
}

// TestIsolationReach has attackers try to get at the victim's map past its sockets.
// Root, for whom all these ways are open, shows that they lead there.
func TestIsolationReach(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	others := &isolationLab{Pair: testutil.Pair(t), outside: testutil.Cgroup(t)}
	lab := newGrantLab(t)
	outside := lab.path + "-root"
	must(t, lab.attachment.GrantReceiveMap(bpf.Grant{Path: outside}))
	vars := []string{
		env(victimEnv, uint64(os.Getpid())), env(mapEnv, uint64(lab.attachment.Info().RxMapID)),
		env(memoryEnv, mapping(t)), grantEnv + "=" + outside,
	}
	reached := func(t *testing.T, opts testutil.ChildOptions) (names []string) {
		t.Helper()
		opts.Env = vars
		out, err := testutil.RunChild(t, "isolationReach", opts)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for line := range strings.Lines(string(out)) {
			if name, ok := strings.CutPrefix(line, "reached: "); ok {
				names = append(names, strings.TrimSpace(name))
			}
		}
		return names
	}
	var all []string
	for _, r := range reaches {
		all = append(all, r.name)
	}
	if got := reached(t, testutil.ChildOptions{}); !slices.Equal(got, all) {
		t.Errorf("root reaches %q, want %q", got, all)
	}
	for who, opts := range others.attackers() {
		t.Run(who, func(t *testing.T) {
			if opts.Container {
				testutil.RequireContainers(t)
			}
			if got := reached(t, opts); got != nil {
				t.Errorf("reaches %q", got)
			}
		})
	}
	// What the kernel asks of who attaches is not enough to get at what others did.
	t.Run("another agent", func(t *testing.T) {
		got := reached(t, testutil.ChildOptions{
			UID: nobody, GID: nobody, NoNewPrivs: true,
			KeepCaps: []uintptr{unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_PERFMON},
		})
		if want := []string{"attaching", "attaching privately"}; !slices.Equal(got, want) {
			t.Errorf("reaches %q, want %q", got, want)
		}
	})
}

// mapping returns where the process has mapped a receive map.
func mapping(t *testing.T) uint64 {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	must(t, err)
	for lines := bufio.NewScanner(bytes.NewReader(maps)); lines.Scan(); {
		if line := lines.Text(); strings.Contains(line, "bpf-map") {
			start, _, _ := strings.Cut(line, "-")
			addr, err := strconv.ParseUint(start, 16, 64)
			must(t, err)
			return addr
		}
	}
	t.Fatal("no map is mapped")
	return 0
}

// TestContainer has the root of a container use sockets where somebody outside has
// attached the programs, and where nobody has.
func TestContainer(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.RequireContainers(t)
	testutil.Leaks(t)
	run := func(t *testing.T, name string, vars ...string) {
		t.Helper()
		out, err := testutil.RunChild(t, name, testutil.ChildOptions{Container: true, Env: vars})
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
	t.Run("attached", func(t *testing.T) {
		lab := newGrantLab(t)
		run(t, "containerAttached", env(mapEnv, uint64(lab.attachment.Info().RxMapID)), grantEnv+"="+lab.path)
	})
	t.Run("alone", func(t *testing.T) {
		bareCgroup(t)
		run(t, "containerAlone")
	})
}

func containerAttached() error {
	if uid := os.Getuid(); uid != 0 {
		return fmt.Errorf("user is %d", uid)
	}
	if err := containerMayNot(); err != nil {
		return err
	}
	c, send, err := loopback()
	if err != nil {
		return err
	}
	defer c.Close()
	if err := checkSupport(c, false); err != nil {
		return err
	}
	if s := c.Support(); !native() && !errors.Is(s.Unmapped, sockmeta.ErrNotSupported) {
		return fmt.Errorf("support is %v, %w", s, s.Unmapped)
	}
	if err := send("payload"); err != nil {
		return err
	}
	var md sockmeta.Metadata
	if _, _, err := c.ReadMetadata(make([]byte, 16), &md); err != nil {
		return err
	}
	if err := wantLoopback(&md); err != nil {
		return err
	}
	if _, err := ebpf.NewMapFromID(ebpf.MapID(envNumber(mapEnv))); !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("map by its number: %w", err)
	}
	return grantOutsider()
}

// containerMayNot has what needs the host's capabilities fail, and say so.
func containerMayNot() error {
	_, attached := bpf.Attach(bpf.Options{})
	_, private := bpf.Attach(bpf.Options{Private: true})
	_, produced := bpf.AttachProducer("lo", bpf.ProducerOptions{})
	for _, err := range []error{attached, private, produced} {
		if !errors.Is(err, bpf.ErrNotSupported) || !strings.Contains(err.Error(), "user namespace") {
			return fmt.Errorf("attached: %w", err)
		}
	}
	return nil
}

func containerAlone() error {
	if err := containerMayNot(); err != nil {
		return err
	}
	ns, err := netlab.New()
	if err != nil {
		return err
	}
	defer ns.Close()
	return ns.Do(func() error {
		c, send, err := loopback()
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.Support().Err(); !errors.Is(err, sockmeta.ErrNotSupported) || !strings.Contains(err.Error(), "user namespace") {
			return fmt.Errorf("support: %w", err)
		}
		if err := send("payload"); err != nil {
			return err
		}
		b := make([]byte, 16)
		var md sockmeta.Metadata
		n, _, err := c.ReadMetadata(b, &md)
		if string(b[:n]) != "payload" || !errors.Is(err, sockmeta.ErrNotSupported) {
			return fmt.Errorf("%q, %w", b[:n], err)
		}
		return nil
	})
}

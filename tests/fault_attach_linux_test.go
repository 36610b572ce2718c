// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/internal/cgroup2"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

func init() {
	children["faultAttach"] = func() error { return failEach(attachment) }
	children["faultJoin"] = func() error { return failEach(joined) }
	children["faultLocal"] = func() error { return failEach(local) }
	children["faultProducer"] = func() error { return failEach(producer) }
}

// faultUID is the user of the processes whose attaching fails: by it the kernel
// tells their programs from those of other tests.
const faultUID = 64917

// faultErrnos are what the steps fail with, in turn.
var faultErrnos = []unix.Errno{unix.EPERM, unix.ENOMEM, unix.EBUSY, unix.EINVAL}

// A saboteur lets a system call fail, and what tries the same again at once, as the
// loader does to hear the verifier's reasons.
type saboteur struct {
	mu sync.Mutex
	sabotage
}

type sabotage struct {
	on    bool
	steps []step // so far
	at    int    // the index of the one that fails
	errno unix.Errno
	over  bool // another one came after it
	// searching is while the loader goes through all types that there are, for
	// a function that the kernel does not have: others' come and go.
	searching bool
	// always, where it is not nil, says which ones fail.
	always func(step) bool
}

// A step is a system call of an attachment.
type step struct {
	nr  int
	bpf testutil.BPFCall
}

func (s *saboteur) judge(c testutil.SystemCall) unix.Errno {
	is := step{nr: c.Nr}
	if c.Nr == unix.SYS_BPF {
		is.bpf = c.BPF()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.on {
		return 0
	}
	switch is.bpf.Cmd {
	case unix.BPF_BTF_GET_NEXT_ID, unix.BPF_BTF_GET_FD_BY_ID:
		s.searching = true
	case unix.BPF_OBJ_GET_INFO_BY_FD:
	default:
		s.searching = false
	}
	if s.searching {
		return 0
	}
	if s.always != nil && s.always(is) {
		return s.errno
	}
	if s.repeats(is) {
		return 0
	}
	s.steps = append(s.steps, is)
	if n := len(s.steps) - 1; n < s.at || s.over {
		return 0
	}
	if s.over = is != s.steps[s.at]; s.over {
		return 0
	}
	return s.errno
}

// repeats says whether a step is the one before once more, though that was let
// through: the verifier gives up with EAGAIN when a signal comes, as the runtime sends
// them to preempt, and the loader tries again.
func (s *sabotage) repeats(is step) bool {
	last := len(s.steps) - 1
	return is.bpf.Cmd == unix.BPF_PROG_LOAD && last >= 0 && last != s.at && s.steps[last] == is
}

// nothing is the index of no step.
const nothing = 1 << 30

// try attaches while the step with an index fails.
func (s *saboteur) try(attach func() (io.Closer, error), at int, errno unix.Errno) (c io.Closer, steps []step, err error) {
	s.begin(sabotage{on: true, at: at, errno: errno})
	c, err = attach()
	return c, s.begin(sabotage{}).steps, err
}

func (s *saboteur) begin(next sabotage) (last sabotage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last, s.sabotage = s.sabotage, next
	return last
}

// A subject is something to attach whose steps fail.
type subject struct {
	attach func() (io.Closer, error)
	// verify says whether what was attached works.
	verify func() error
	// survives says that attaching may do without a step.
	survives func(step) bool
	// varies says that there are more steps the more others have attached.
	varies bool
}

func attachment() (subject, error) {
	return subject{
		attach: func() (io.Closer, error) { return closer(bpf.Attach(bpf.Options{})) },
		verify: verifyLoopback,
		// Others cannot be found, and are done without; types of maps are for people
		// who look at them; what it cannot be told for EINVAL the loader reads in /proc.
		survives: func(s step) bool {
			return s.bpf.Cmd == unix.BPF_PROG_QUERY || s.bpf.Cmd == unix.BPF_BTF_LOAD || s.bpf.Cmd == unix.BPF_OBJ_GET_INFO_BY_FD
		},
	}, nil
}

// closer keeps a nil pointer from becoming an interface that is not nil.
func closer[C interface {
	comparable
	io.Closer
}](c C, err error) (io.Closer, error) {
	if err != nil {
		return nil, err
	}
	return c, nil
}

func joined() (subject, error) {
	// Else the first socket that finds the other process's programs would do it.
	_, err := bpf.AttachOwn()
	s, _ := attachment()
	// Attaching beside those that are there does as well.
	s.survives = func(step) bool { return true }
	s.varies = true
	return s, err
}

func local() (subject, error) {
	a, err := bpf.AttachOwn()
	return subject{
		attach:   func() (io.Closer, error) { return closer(a.AttachLocal("lo")) },
		verify:   verifyLoopback,
		survives: func(step) bool { return false },
	}, err
}

func producer() (subject, error) {
	// The first socket would do it, and make more of the calls that fail.
	_, err := bpf.AttachOwn()
	services := map[uint16]uint32{faultPort: foreignService}
	return subject{
		attach: func() (io.Closer, error) {
			return closer(bpf.AttachProducer("lo", bpf.ProducerOptions{Services: services}))
		},
		verify: verifyProducer,
		// Types of its map are for people who look at it.
		survives: func(s step) bool { return s.bpf.Cmd == unix.BPF_BTF_LOAD },
	}, err
}

const faultPort = 7300

func verifyProducer() error {
	c, err := sockmeta.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: faultPort})
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.WriteTo([]byte("payload"), c.LocalAddr()); err != nil {
		return err
	}
	var md sockmeta.Metadata
	if _, _, err := c.ReadMetadata(make([]byte, 64), &md); err != nil {
		return err
	}
	if id, ok := md.Uint32(sockmeta.KeyServiceID); !ok || id != foreignService {
		return fmt.Errorf("metadata is %v, want service %d", md, foreignService)
	}
	return nil
}

// verifyLoopback sends a socket a datagram and reads its metadata.
func verifyLoopback() error {
	c, send, err := loopback()
	if err != nil {
		return err
	}
	defer c.Close()
	if err := send("payload"); err != nil {
		return err
	}
	var md sockmeta.Metadata
	if _, _, err := c.ReadMetadata(make([]byte, 64), &md); err != nil {
		return err
	}
	return wantLoopback(&md)
}

// failEach lets the steps of attaching fail, one in each attempt, and looks for what
// the failure left behind.
func failEach(make func() (subject, error)) error {
	s, err := make()
	if err != nil {
		return err
	}
	var sab saboteur
	if err := testutil.JudgeCalls(sab.judge, unix.SYS_BPF, unix.SYS_MMAP); err != nil {
		return err
	}
	// The loader would close forgotten files when they are collected.
	debug.SetGCPercent(-1)
	// The first attempt makes calls, to know the kernel, that later ones do without.
	var steps []step
	for range 2 {
		var c io.Closer
		if c, steps, err = sab.try(s.attach, nothing, 0); err != nil {
			return err
		}
		if err := errors.Join(s.verify(), c.Close()); err != nil {
			return err
		}
	}
	before, err := takeStock()
	if err != nil {
		return err
	}
	tried := 0
	for at, is := range steps {
		if !worthTrying(steps, at, s.varies) {
			continue
		}
		errno := faultErrnos[tried%len(faultErrnos)]
		tried++
		what := fmt.Sprintf("step %d of %d, %s, fails with %q", at, len(steps), is, errno)
		c, got, err := sab.try(s.attach, at, errno)
		if !s.varies && (len(got) <= at || got[at] != is) {
			return fmt.Errorf("%s: another came in its place: %v", what, got)
		}
		switch {
		case err != nil:
			if err := is.check(err, errno); err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
		case !s.survives(is) && !lacksNative(c, errno):
			return fmt.Errorf("%s: no error", what)
		default:
			if err := errors.Join(s.verify(), c.Close()); err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
		}
		if err := before.compare(); err != nil {
			return fmt.Errorf("%s: left behind: %w", what, err)
		}
	}
	c, _, err := sab.try(s.attach, nothing, 0)
	if err != nil {
		return fmt.Errorf("at last: %w", err)
	}
	return errors.Join(s.verify(), c.Close(), before.compare())
}

// lacksNative says whether something is an attachment without the native tier, for that
// reason: all else works without. Not all errors of the loader wrap it.
func lacksNative(c io.Closer, why unix.Errno) bool {
	a, ok := c.(*bpf.Attachment)
	return native() && ok && errors.Is(a.Native(), bpf.ErrNotSupported) && strings.Contains(a.Native().Error(), why.Error())
}

// worthTrying leaves out, of steps that are alike, all but the last: there are many
// that tell the kernel types. Where there are few to be tried it is one of each kind.
func worthTrying(steps []step, at int, few bool) bool {
	for _, later := range steps[at+1:] {
		if later == steps[at] && later.bpf.Cmd == unix.BPF_BTF_LOAD {
			return false
		}
		if (few || testing.Short()) && later.nr == steps[at].nr && later.bpf.Cmd == steps[at].bpf.Cmd {
			return false
		}
	}
	return true
}

// check says what is wrong with the error of an attachment whose step failed.
func (s step) check(err error, errno unix.Errno) error {
	if !errors.Is(err, errno) {
		return fmt.Errorf("error is another one: %w", err)
	}
	// Of another XDP program there the caller is to hear as such.
	taken := errno == unix.EBUSY && s.bpf.Cmd == unix.BPF_LINK_CREATE && ebpf.AttachType(s.bpf.AttachType) == ebpf.AttachXDP
	if !errors.Is(err, sockmeta.ErrNotSupported) && !taken {
		return fmt.Errorf("error is not ErrNotSupported: %w", err)
	}
	if strings.Contains(err.Error(), "MEMLOCK") {
		return fmt.Errorf("misleading: %w", err)
	}
	want := s.bpf.Name
	switch {
	case s.nr == unix.SYS_MMAP:
		want = "map"
	case s.bpf.Cmd == unix.BPF_LINK_CREATE:
		want = linkNames[ebpf.AttachType(s.bpf.AttachType)]
	case want == "xdpmeta", s.bpf.Cmd == unix.BPF_PROG_RUN:
		want = "XDP metadata"
	case want == "":
		want = stepNames[s.bpf.Cmd]
	}
	if want == "" || !strings.Contains(err.Error(), want) {
		return fmt.Errorf("error does not name %q: %w", want, err)
	}
	return nil
}

// What the errors call steps that have no name of their own.
var (
	linkNames = map[ebpf.AttachType]string{
		ebpf.AttachCGroupInetIngress:     "cgroup_skb/ingress to ",
		ebpf.AttachCGroupInetEgress:      "cgroup_skb/egress to ",
		ebpf.AttachCGroupSockOps:         "sockops to ",
		ebpf.AttachCgroupInetSockRelease: "cgroup/sock_release to ",
		ebpf.AttachCGroupGetsockopt:      "cgroup/getsockopt to ",
		ebpf.AttachCGroupSetsockopt:      "cgroup/setsockopt to ",
		ebpf.AttachXDP:                   "XDP",
		ebpf.AttachTCXIngress:            "TCX",
	}
	stepNames = map[int]string{
		unix.BPF_BTF_LOAD:           "BTF",
		unix.BPF_MAP_UPDATE_ELEM:    "update",
		unix.BPF_MAP_LOOKUP_ELEM:    "map",
		unix.BPF_MAP_FREEZE:         "map",
		unix.BPF_PROG_BIND_MAP:      "map",
		unix.BPF_OBJ_GET_INFO_BY_FD: "map",
	}
)

func (s step) String() string {
	switch s.nr {
	case unix.SYS_MMAP:
		return "mmap"
	}
	return fmt.Sprintf("bpf %+v", s.bpf)
}

// stock is what a failed attachment may leave behind.
type stock struct {
	files    []string
	mappings int
	// programs are those of this user, cgroup those that are attached to this
	// process's cgroup.
	programs, cgroup int
}

func takeStock() (s stock, err error) {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return s, err
	}
	for _, fd := range fds {
		if to, err := os.Readlink(filepath.Join("/proc/self/fd", fd.Name())); err == nil {
			s.files = append(s.files, to)
		}
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return s, err
	}
	s.mappings = strings.Count(string(maps), "bpf-map")
	self, err := cgroup2.Self()
	if err != nil {
		return s, err
	}
	dir, err := os.Open(self)
	if err != nil {
		return s, err
	}
	defer dir.Close()
	for _, typ := range append(attachTypes, ebpf.AttachCGroupInetEgress) {
		r, err := link.QueryPrograms(link.QueryOptions{Target: int(dir.Fd()), Attach: typ})
		if err != nil {
			return s, err
		}
		s.cgroup += len(r.Programs)
	}
	s.programs, err = programsOf(faultUID)
	return s, err
}

// programsOf counts the programs that a user has loaded.
func programsOf(uid uint32) (n int, err error) {
	for id := ebpf.ProgramID(0); ; {
		if id, err = ebpf.ProgramGetNextID(id); err != nil {
			if errors.Is(err, os.ErrNotExist) {
				err = nil
			}
			return n, err
		}
		p, err := ebpf.NewProgramFromID(id)
		if errors.Is(err, os.ErrNotExist) {
			continue // it is on its way out
		}
		if err != nil {
			return n, err
		}
		info, err := p.Info()
		_ = p.Close()
		if err != nil {
			return n, err
		}
		if by, ok := info.CreatedByUID(); ok && by == uid {
			n++
		}
	}
}

// compare says what there is more of than before. The kernel takes programs away on
// its own time, and the runtime mappings when it collects.
func (s stock) compare() error {
	now, err := takeStock()
	if err != nil {
		return err
	}
	if len(now.files) > len(s.files) {
		return fmt.Errorf("files %q, before %q", now.files, s.files)
	}
	for end := time.Now().Add(udpPatience); ; time.Sleep(time.Millisecond) {
		runtime.GC()
		if now, err = takeStock(); err != nil {
			return err
		}
		if now.mappings <= s.mappings && now.programs <= s.programs && now.cgroup <= s.cgroup {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%+v, before %+v", now, s)
		}
	}
}

// TestFaultAttach lets each step of attaching fail: the error says what was refused,
// nothing stays behind, and the process can attach when the fault is over.
func TestFaultAttach(t *testing.T) {
	testutil.RequireRoot(t)
	for _, tt := range []struct {
		name, child string
		// shared says that another process has attached before.
		shared bool
	}{
		{"alone", "faultAttach", false},
		{"shared", "faultJoin", true},
		{"producer", "faultProducer", false},
	} {
		if testing.Short() && tt.name != "alone" {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			testutil.Leaks(t)
			ns := testutil.Namespace(t)
			cg := testutil.EnterCgroup(t)
			if tt.shared {
				a, err := bpf.Attach(bpf.Options{Cgroup: cg.Path()})
				must(t, err)
				defer a.Close()
			}
			runFault(t, tt.child, ns)
		})
	}
}

// TestLocalFaultAttach is TestFaultAttach for AttachLocal.
func TestLocalFaultAttach(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	ns := testutil.Namespace(t)
	cg := testutil.EnterCgroup(t)
	a, err := bpf.Attach(bpf.Options{Cgroup: cg.Path()})
	must(t, err)
	err = ns.Do(func() error {
		_, err := a.AttachLocal("lo")
		return err
	})
	must(t, a.Close())
	if errors.Is(err, sockmeta.ErrNotSupported) {
		t.Skip(err)
	}
	must(t, err)
	runFault(t, "faultLocal", ns)
}

// runFault runs a function of a process with what attaching and looking after it
// needs.
func runFault(t *testing.T, child string, ns *netlab.Namespace) {
	t.Helper()
	out, err := testutil.RunChild(t, child, testutil.ChildOptions{
		UID: faultUID, GID: faultUID, Netns: ns,
		KeepCaps: []uintptr{unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_PERFMON, unix.CAP_SYS_ADMIN},
	})
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

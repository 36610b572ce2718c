// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/internal/abi"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// Halves of the packet ids of datagrams to the victim, and to a socket that the
// attacker is given: what he looks for.
const (
	victimMagic = 0xA5C35E17
	givenMagic  = 0xB6D46F28
)

// isolationLab is a victim, the test process, on a host whose packets have ids.
type isolationLab struct {
	*netlab.Pair
	cgroup     *netlab.Cgroup
	outside    *netlab.Cgroup // beside it: no programs there
	attachment *bpf.Attachment
	victim     *sockmeta.UDPConn
	sent       uint64
}

func newIsolationLab(t *testing.T, slots int) *isolationLab {
	t.Helper()
	lab := &isolationLab{Pair: testutil.Pair(t), outside: testutil.Cgroup(t)}
	lab.cgroup = testutil.EnterCgroup(t)
	var err error
	lab.attachment, err = bpf.Attach(bpf.Options{Cgroup: lab.cgroup.Path(), SlotsPerCPU: slots})
	must(t, err)
	t.Cleanup(func() { _ = lab.attachment.Close() })
	attachEchoUDP(t, lab.Pair)
	lab.victim = lab.listen(t)
	return lab
}

func (lab *isolationLab) listen(t *testing.T) *sockmeta.UDPConn {
	t.Helper()
	c := listenUDP(t, lab.Server, "udp4", udpAddr(lab.ServerAddr4, 0))
	must(t, c.Support().Err())
	return c
}

// fill sends datagrams to a socket, as many as there are slots for each CPU in
// which they leave their records, and reads the first ones.
func (lab *isolationLab) fill(t *testing.T, c *sockmeta.UDPConn, magic uint32, perCPU int) (handles []uint64) {
	t.Helper()
	withFD(t, c, carryHandles)
	from := dialUDP(t, lab.Client, nil, c.LocalAddr().(*net.UDPAddr))
	must(t, onEachCPU(func() error {
		for range perCPU {
			lab.sent++
			if _, err := from.Write([]byte(numbered(uint64(magic)<<32 | lab.sent))); err != nil {
				return err
			}
		}
		return nil
	}))
	withFD(t, c, func(fd int) error {
		for {
			handle, err := readHandle(fd)
			if err == unix.EAGAIN {
				return nil
			}
			if err != nil {
				return err
			}
			handles = append(handles, handle)
		}
	})
	return handles
}

// onEachCPU runs f on each of the process's CPUs in turn.
func onEachCPU(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return err
	}
	for cpu := range ebpf.MustPossibleCPU() {
		if !all.IsSet(cpu) {
			continue
		}
		var one unix.CPUSet
		one.Set(cpu)
		if err := unix.SchedSetaffinity(0, &one); err != nil {
			return err
		}
		if err := f(); err != nil {
			return errors.Join(err, unix.SchedSetaffinity(0, &all))
		}
	}
	return unix.SchedSetaffinity(0, &all)
}

// A loot is what an attacker got of slots.
type loot struct {
	answers       int
	victim, given int // answers with their packet ids somewhere
}

// sweep asks for every slot by a socket, and looks at all that comes back: also
// behind a record's end, and where the call fails.
func sweep(fd, slots int) (loot, error) {
	var l loot
	for i := range slots + 4 {
		b := make([]byte, unsafe.Sizeof(abi.Answer{}))
		size := uint32(len(b))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), abi.SOL_BPF, uintptr(abi.OptSlot+i),
			uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch errno {
		case 0:
			l.answers++
		case unix.ENODATA, unix.ENOPROTOOPT, unix.EOPNOTSUPP:
		default:
			return l, fmt.Errorf("slot %d: %w", i, errno)
		}
		if hasMagic(b, victimMagic) {
			l.victim++
		}
		if hasMagic(b, givenMagic) {
			l.given++
		}
	}
	return l, nil
}

func hasMagic(b []byte, magic uint32) bool {
	return bytes.Contains(b, binary.NativeEndian.AppendUint32(nil, magic))
}

// slotsEnv tells an attacker's process how many slots there are.
const slotsEnv = "SOCKMETA_TEST_SLOTS"

func envNumber(name string) uint64 {
	n, err := strconv.ParseUint(os.Getenv(name), 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

func env(name string, n uint64) string { return fmt.Sprintf("%s=%d", name, n) }

// attackers are the processes that try, with nothing but what everybody has.
func (lab *isolationLab) attackers() map[string]testutil.ChildOptions {
	user := testutil.ChildOptions{UID: nobody, GID: nobody, NoNewPrivs: true, Netns: lab.Server}
	elsewhere := user
	elsewhere.Cgroup = lab.outside.Path()
	return map[string]testutil.ChildOptions{
		"other user":   user,
		"other cgroup": elsewhere,
		"container":    {Container: true, NoNewPrivs: true},
	}
}

// attack runs a child function as each of the attackers. It is to fail where he
// gets something.
func (lab *isolationLab) attack(t *testing.T, name string, vars ...string) {
	t.Helper()
	for who, opts := range lab.attackers() {
		t.Run(who, func(t *testing.T) {
			if opts.Container {
				testutil.RequireContainers(t)
			}
			opts.Env = vars
			if out, err := testutil.RunChild(t, name, opts); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// withLoopback runs f in a network namespace that has a loopback interface: a
// container's own has to be set up.
func withLoopback(f func() error) error {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return err
	}
	if lo.Flags&net.FlagUp != 0 {
		return f()
	}
	ns, err := netlab.New()
	if err != nil {
		return err
	}
	defer ns.Close()
	return ns.Do(f)
}

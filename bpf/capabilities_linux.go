// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

type capability struct {
	bit  uint
	name string
	also uint // contains it: include/linux/capability.h, bpf_capable and perfmon_capable
}

var (
	capBPF      = capability{unix.CAP_BPF, "CAP_BPF", unix.CAP_SYS_ADMIN}
	capNetAdmin = capability{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN", unix.CAP_NET_ADMIN}
	capPerfmon  = capability{unix.CAP_PERFMON, "CAP_PERFMON", unix.CAP_SYS_ADMIN}
	capSysAdmin = capability{unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN", unix.CAP_SYS_ADMIN}
)

// What the kernel asks for (kernel/bpf/syscall.c, bpf_prog_load and
// bpf_prog_attach_check), and what mends its lack. Without CAP_PERFMON the
// verifier follows speculated paths, too, and refuses both: the programs that
// read kernel memory, and the producer, which compares packet pointers.
var (
	toAttach = privileges{
		[]capability{capBPF, capNetAdmin, capPerfmon},
		"grant the program what is missing (setcap, or AmbientCapabilities= in its unit), or have a privileged process attach to its cgroup (sockmeta attach)",
		"have a privileged process of the host attach to its cgroup (sockmeta attach)",
	}
	// The kernel gives nobody else the types of modules (bpf_btf_get_fd_by_id).
	toLoadModule = privileges{
		[]capability{capSysAdmin},
		"the native tier takes it besides the others, where a module has the kernel functions",
		"the native tier takes it, where a module has the kernel functions",
	}
	toProduce = privileges{
		[]capability{capBPF, capNetAdmin, capPerfmon},
		"grant the program what is missing (setcap, or AmbientCapabilities= in its unit)",
		"have a privileged process of the host do it",
	}
)

type privileges struct {
	caps []capability
	mend string
	// outside mends it in a user namespace, where capabilities cannot be granted.
	outside string
}

// check says what is missing before the kernel says EPERM.
func (p privileges) check() error {
	if inUserNamespace() {
		return fmt.Errorf("%w: this process's capabilities count in its user namespace only: %s", ErrNotSupported, p.outside)
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	have := func(bit uint) bool { return data[bit/32].Effective&(1<<(bit%32)) != 0 }
	var missing []string
	for _, c := range p.caps {
		if !have(c.bit) && !have(c.also) {
			missing = append(missing, c.name)
		}
	}
	if missing != nil {
		return fmt.Errorf("%w: missing %s: %s", ErrNotSupported, strings.Join(missing, ", "), p.mend)
	}
	return nil
}

// errTracing is in what went wrong with the programs for raw control messages.
var errTracing = errors.New("raw control messages (Options.Tracing) need a kernel that allows BPF trampolines, fentry of udp_sendmsg")

// explain makes what the kernel refused an ErrNotSupported.
func explain(err error) error {
	if short := asShortage(err); short != nil {
		return short
	}
	switch {
	case mistaken(err):
		return fmt.Errorf("%w: memory or file descriptors ran out as this process first looked at the kernel, which the loader takes for an old kernel for good: start the process anew: %w", ErrNotSupported, err)
	case lockedDown():
		return fmt.Errorf("%w: the kernel is locked down (lockdown=confidentiality), so that programs cannot read what they have to of its memory: boot it with lockdown=integrity, or without: %w", ErrNotSupported, unguessed{err})
	case !errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: %w", ErrNotSupported, err)
	case errors.Is(err, errTracing):
		return fmt.Errorf("%w: %w", ErrNotSupported, unguessed{err})
	}
	return fmt.Errorf("%w: %w: refused in spite of the capabilities: look for a seccomp filter, or a cgroup program that was attached without BPF_F_ALLOW_MULTI", ErrNotSupported, unguessed{err})
}

// lockedDown says whether programs may not read the kernel's memory
// (LOCKDOWN_BPF_READ_KERNEL). Where securityfs is not mounted, it tries.
func lockedDown() bool {
	if b, err := os.ReadFile("/sys/kernel/security/lockdown"); err == nil {
		return strings.Contains(string(b), "[confidentiality]")
	}
	return errors.Is(readsKernel(), unix.EINVAL)
}

// mistaken says whether the loader has put an older helper in the place of one that
// the kernel has.
func mistaken(err error) bool {
	var refusal *ebpf.VerifierError
	return errors.As(err, &refusal) &&
		slices.ContainsFunc(refusal.Log, func(line string) bool {
			return strings.Contains(line, "program of this type cannot use helper")
		}) && readsKernel() == nil
}

// unguessed leaves out the loader's own guess at the cause of an EPERM, which is
// about kernels before 5.11.
type unguessed struct{ err error }

func (u unguessed) Error() string {
	return strings.ReplaceAll(u.err.Error(), " (MEMLOCK may be too low, consider rlimit.RemoveMemlock)", "")
}

func (u unguessed) Unwrap() error { return u.err }

// checkBits keeps from attaching what could not use it: 64-bit kernels do not show
// programs the socket options of 32-bit processes (net/socket.c, do_sock_setsockopt).
func checkBits() error {
	var uts unix.Utsname
	if unsafe.Sizeof(uintptr(0)) == 8 || unix.Uname(&uts) != nil || !strings.Contains(unix.ByteSliceToString(uts.Machine[:]), "64") {
		return nil
	}
	return fmt.Errorf("%w: this is a 32-bit process, whose socket options a 64-bit kernel does not show to programs: build it for 64 bits", ErrNotSupported)
}

func inUserNamespace() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && strings.Join(strings.Fields(string(b)), " ") != "0 0 4294967295"
}

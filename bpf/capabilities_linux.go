// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// What the kernel asks for to load and attach cgroup programs that read kernel
// memory: kernel/bpf/syscall.c, bpf_prog_load and bpf_prog_attach_check. Each
// but CAP_NET_ADMIN is contained in CAP_SYS_ADMIN (include/linux/capability.h,
// bpf_capable and perfmon_capable).
var needed = []struct {
	bit  uint
	name string
	also uint
}{
	{unix.CAP_BPF, "CAP_BPF", unix.CAP_SYS_ADMIN},
	{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN", unix.CAP_NET_ADMIN},
	{unix.CAP_PERFMON, "CAP_PERFMON", unix.CAP_SYS_ADMIN},
}

const mend = "grant them to the program (setcap, or AmbientCapabilities= in its unit), or attach to its cgroup from a privileged process"

// checkCapabilities says what is missing before the kernel says EPERM.
func checkCapabilities() error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	have := func(bit uint) bool { return data[bit/32].Effective&(1<<(bit%32)) != 0 }
	var missing []string
	for _, c := range needed {
		if !have(c.bit) && !have(c.also) {
			missing = append(missing, c.name)
		}
	}
	if missing != nil {
		return fmt.Errorf("%w: missing %s: %s", ErrNotSupported, strings.Join(missing, ", "), mend)
	}
	return nil
}

// withPrivilegeHint explains an EPERM in spite of all capabilities.
func withPrivilegeHint(err error) error {
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	if inUserNamespace() {
		return fmt.Errorf("%w: %w: this process's capabilities count in its user namespace only: %s", ErrNotSupported, err, mend)
	}
	return fmt.Errorf("%w: %w: refused in spite of CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON: look for lockdown=confidentiality, a seccomp filter, or a cgroup program attached without BPF_F_ALLOW_MULTI", ErrNotSupported, err)
}

func inUserNamespace() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && strings.Join(strings.Fields(string(b)), " ") != "0 0 4294967295"
}

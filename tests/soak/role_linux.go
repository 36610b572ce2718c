// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/internal/netlab"
)

const (
	roleEnv    = "SOCKMETA_SOAK_ROLE"
	confineEnv = "SOCKMETA_SOAK_CONFINE"
	nobody     = 65534
	privileged = -1 // root with all that it has
)

// The descriptors of a process that was started in a role.
const (
	exeFD = iota + 3
	netnsFD
	controlFD
	peerFD
)

// roles are what processes of this program do, besides the first.
var roles = map[string]func() error{
	"attacher": attacher,
	"worker":   worker,
}

// runRole does not return in a process that has a role.
func runRole() {
	name := os.Getenv(roleEnv)
	if name == "" {
		return
	}
	err := confine()
	if err == nil {
		err = roles[name]()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "soak: %s: %v\n", name, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// confine has a process execute itself once more with the namespace, the user and
// the capabilities that it is to have: each is a thread's, and execve keeps the
// thread that calls it.
func confine() error {
	v, ok := os.LookupEnv(confineEnv)
	if !ok {
		return nil
	}
	uid, err := strconv.Atoi(v)
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	if err := unix.Setns(netnsFD, unix.CLONE_NEWNET); err != nil {
		return os.NewSyscallError("setns", err)
	}
	switch uid {
	case privileged:
	case 0:
		err = dropNetAdmin()
	default:
		err = becomeUser(uid)
	}
	if err != nil {
		return err
	}
	env := slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, confineEnv+"=") })
	// The program's directory may be closed to the user.
	return os.NewSyscallError("execve", syscall.Exec(fmt.Sprintf("/proc/self/fd/%d", exeFD), os.Args[:1], env))
}

// dropNetAdmin leaves root what maps the records of others, and takes from it what
// attaches: a process that attached by itself would never detach.
func dropNetAdmin() error {
	if err := unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_NET_ADMIN, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl(PR_CAPBSET_DROP)", err)
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	data[0].Inheritable, data[1].Inheritable = 0, 0
	return os.NewSyscallError("capset", unix.Capset(&hdr, &data[0]))
}

func becomeUser(id int) error {
	for _, call := range [][4]uintptr{
		{unix.SYS_SETGROUPS},
		{unix.SYS_SETRESGID, uintptr(id), uintptr(id), uintptr(id)},
		{unix.SYS_SETRESUID, uintptr(id), uintptr(id), uintptr(id)},
		{unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1},
	} {
		if _, _, errno := unix.RawSyscall6(call[0], call[1], call[2], call[3], 0, 0, 0); errno != 0 {
			return fmt.Errorf("become user %d: %w", id, errno)
		}
	}
	return nil
}

// A place is where a process lives.
type place struct {
	cgroup *netlab.Cgroup
	netns  *netlab.Namespace
	uid    int
	files  []*os.File // from controlFD on
}

// command returns the command of a process in a role. Without a place it stays
// where this process is.
func command(role string, at *place) (cmd *exec.Cmd, done func(), err error) {
	cmd = exec.Command("/proc/self/exe")
	cmd.Args[0] = os.Args[0]
	cmd.Stderr = os.Stderr
	cmd.Env = append(os.Environ(), roleEnv+"="+role)
	// An interrupt from the terminal is the first process's to handle.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if at == nil {
		return cmd, func() {}, nil
	}
	exe, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, nil, err
	}
	dir, err := os.Open(at.cgroup.Path())
	if err != nil {
		_ = exe.Close()
		return nil, nil, err
	}
	cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%d", confineEnv, at.uid))
	cmd.ExtraFiles = append([]*os.File{exe, at.netns.File()}, at.files...)
	cmd.SysProcAttr.UseCgroupFD = true
	cmd.SysProcAttr.CgroupFD = int(dir.Fd())
	return cmd, func() { _ = exe.Close(); _ = dir.Close() }, nil
}

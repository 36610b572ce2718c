// SPDX-License-Identifier: Apache-2.0

package cgroup2

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// detached is a mount of the hierarchy that is nowhere but in this process, which keeps
// it. The kernel gives it to those with CAP_SYS_ADMIN.
var detached struct {
	sync.Mutex
	dir string
}

// detachedMount returns the directory of a mount of everything that this process's
// cgroup namespace contains. It must not be the first mount of all: that would turn
// the hierarchy on.
func detachedMount() (MountPoint, error) {
	detached.Lock()
	defer detached.Unlock()
	if detached.dir == "" {
		fd, err := mountDetached()
		if err != nil {
			return MountPoint{}, err
		}
		detached.dir = fmt.Sprintf("/proc/self/fd/%d", fd)
	}
	return MountPoint{Dir: detached.dir, Root: "/"}, nil
}

func mountDetached() (int, error) {
	fsys, err := unix.Fsopen("cgroup2", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(fsys)
	if err := unix.FsconfigCreate(fsys); err != nil {
		return -1, os.NewSyscallError("fsconfig", err)
	}
	fd, err := unix.Fsmount(fsys, unix.FSMOUNT_CLOEXEC, 0)
	return fd, os.NewSyscallError("fsmount", err)
}

// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/internal/cgroup2"
)

// openCgroup opens the directory of a cgroup, this process's for "".
func openCgroup(path string) (*os.File, error) {
	if path == "" {
		own, err := cgroup2.Self()
		switch {
		case errors.Is(err, cgroup2.ErrNoCgroup2):
			return nil, fmt.Errorf("%w: %w: mount a cgroup v2 hierarchy (mount -t cgroup2 none DIR)", ErrNotSupported, err)
		case err != nil:
			return nil, fmt.Errorf("%w: %w", ErrNotSupported, err)
		}
		path = own
	}
	dir, err := os.OpenFile(path, unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	if err := isCgroup(dir); err != nil {
		_ = dir.Close()
		return nil, err
	}
	return dir, nil
}

// isCgroup says what is wrong with a directory before the kernel says EBADF.
func isCgroup(dir *os.File) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &st); err != nil {
		return os.NewSyscallError("fstatfs", err)
	}
	switch uint32(st.Type) {
	case unix.CGROUP2_SUPER_MAGIC:
		return nil
	case unix.CGROUP_SUPER_MAGIC:
		return fmt.Errorf("%s is a cgroup of version 1: programs attach to directories below a mount of cgroup2: %w", dir.Name(), unix.EINVAL)
	}
	return fmt.Errorf("%s is not a cgroup: want a directory below a mount of cgroup2 (findmnt -t cgroup2): %w", dir.Name(), unix.EINVAL)
}

// cgroupID returns the number of the cgroup, which no other one gets: its directory's
// inode (kernfs).
func cgroupID(dir *os.File) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return 0, os.NewSyscallError("fstat", err)
	}
	return st.Ino, nil
}

// ended says whether the kernel has detached the programs from their cgroup: it was
// removed, and all sockets that were made in it are closed.
func (a *Attachment) ended() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, l := range a.links {
		// Of links that the loader has made itself, it does not know that.
		if i, err := askLink(l); err == nil && i.typ == link.CgroupType {
			return i.cgroup == 0
		}
	}
	return false
}

// linkInfo is what the kernel says of a link.
type linkInfo struct {
	typ     link.Type
	id      link.ID
	program ebpf.ProgramID
	cgroup  uint64 // that it attaches to, 0 when that is gone
}

// askLink asks the kernel: the loader's errors hide the kernel's.
func askLink(l link.Link) (linkInfo, error) {
	f, ok := l.(interface{ FD() int })
	if !ok {
		return linkInfo{}, fmt.Errorf("%T: %w", l, errors.ErrUnsupported)
	}
	// struct bpf_link_info
	var info struct {
		typ, id, prog uint32
		_             uint32
		cgroup        uint64
		attach        [16]uint32
	}
	attr := struct {
		fd, size uint32
		info     uint64
	}{fd: uint32(f.FD()), size: uint32(unsafe.Sizeof(info))}
	var pinned pinner
	defer pinned.Unpin()
	attr.info = pinned.address(unsafe.Pointer(&info))
	if _, err := bpfCall(unix.BPF_OBJ_GET_INFO_BY_FD, unsafe.Pointer(&attr), unsafe.Sizeof(attr)); err != nil {
		return linkInfo{}, fmt.Errorf("link info: %w", err)
	}
	return linkInfo{link.Type(info.typ), link.ID(info.id), ebpf.ProgramID(info.prog), info.cgroup}, nil
}

// SPDX-License-Identifier: Apache-2.0

package testutil

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A SystemCall is one that a thread of this process is about to make.
type SystemCall struct {
	Nr   int
	Args [6]uint64
}

// JudgeCalls has judge say of each of the given system calls that any thread of this
// process makes from now on, for the rest of the process's life, with what error it
// fails, 0 to let it through: it is for processes that RunChild started. judge must
// not make one of the calls itself, as nobody would judge that. Of mmap it is asked
// about shared mappings only, since the runtime maps memory of its own where no other
// thread could run meanwhile.
func JudgeCalls(judge func(SystemCall) unix.Errno, calls ...int) error {
	arch, ok := auditArch[runtime.GOARCH]
	if !ok {
		return fmt.Errorf("seccomp on %s: %w", runtime.GOARCH, unix.ENOSYS)
	}
	filter := seccompFilter(arch, calls)
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	// Once a call was handed to the judge, the signals by which the runtime
	// preempts do not have it made again.
	const flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_TSYNC |
		unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return os.NewSyscallError("seccomp", errno)
	}
	go serveVerdicts(fd, judge)
	return nil
}

// AUDIT_ARCH_* of include/uapi/linux/audit.h.
var auditArch = map[string]uint32{
	"amd64": unix.AUDIT_ARCH_X86_64,
	"arm64": unix.AUDIT_ARCH_AARCH64,
}

// Offsets in struct seccomp_data, on machines whose least significant bytes come
// first.
const (
	seccompNr    = 0
	seccompArch  = 4
	seccompFlags = 16 + 3*8 // fourth argument of mmap
)

func seccompFilter(arch uint32, calls []int) []unix.SockFilter {
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	jump := func(op uint16, k uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, K: k, Jt: yes, Jf: no}
	}
	ret := func(action uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action}
	}
	filter := []unix.SockFilter{
		load(seccompArch),
		jump(unix.BPF_JEQ, arch, 1, 0),
		ret(unix.SECCOMP_RET_ALLOW),
		load(seccompNr),
	}
	for _, nr := range calls {
		if nr == unix.SYS_MMAP {
			filter = append(filter,
				jump(unix.BPF_JEQ, uint32(nr), 0, 4),
				load(seccompFlags),
				jump(unix.BPF_JSET, unix.MAP_SHARED, 0, 1),
				ret(unix.SECCOMP_RET_USER_NOTIF),
				ret(unix.SECCOMP_RET_ALLOW),
			)
			continue
		}
		filter = append(filter, jump(unix.BPF_JEQ, uint32(nr), 0, 1), ret(unix.SECCOMP_RET_USER_NOTIF))
	}
	return append(filter, ret(unix.SECCOMP_RET_ALLOW))
}

// struct seccomp_notif and seccomp_notif_resp of include/uapi/linux/seccomp.h.
type (
	notification struct {
		id         uint64
		pid, flags uint32
		nr         int32
		arch       uint32
		ip         uint64
		args       [6]uint64
	}
	verdict struct {
		id    uint64
		val   int64
		errno int32
		flags uint32
	}
)

func serveVerdicts(listener uintptr, judge func(SystemCall) unix.Errno) {
	runtime.LockOSThread()
	for {
		var n notification
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, listener, unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&n)))
		if errno == unix.EINTR || errno == unix.ENOENT {
			continue // the call was interrupted meanwhile
		}
		if errno != 0 {
			panic(os.NewSyscallError("SECCOMP_IOCTL_NOTIF_RECV", errno))
		}
		v := verdict{id: n.id}
		if e := judge(SystemCall{Nr: int(n.nr), Args: n.args}); e != 0 {
			v.errno = -int32(e)
		} else {
			v.flags = unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE
		}
		_, _, errno = unix.Syscall(unix.SYS_IOCTL, listener, unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&v)))
		if errno != 0 && errno != unix.ENOENT && errno != unix.EINTR {
			panic(os.NewSyscallError("SECCOMP_IOCTL_NOTIF_SEND", errno))
		}
	}
}

// Memory returns n bytes of what an argument points to, fewer at the end of what is
// mapped.
func (SystemCall) Memory(addr uint64, n int) []byte {
	b := make([]byte, n)
	local := unix.Iovec{Base: &b[0]}
	local.SetLen(n)
	got, err := unix.ProcessVMReadv(unix.Getpid(), []unix.Iovec{local},
		[]unix.RemoteIovec{{Base: uintptr(addr), Len: n}}, 0)
	if err != nil {
		return nil
	}
	return b[:got]
}

// A BPFCall is a bpf(2) as tests tell them apart.
type BPFCall struct {
	// Cmd is BPF_MAP_CREATE and so on.
	Cmd int
	// Name is that of the map or program which is made, as the kernel keeps it.
	Name string
	// AttachType is that of a link which is made.
	AttachType uint32
}

// BPF reads what a bpf(2) is about: union bpf_attr of include/uapi/linux/bpf.h.
func (c SystemCall) BPF() BPFCall {
	b := BPFCall{Cmd: int(c.Args[0])}
	attr := make([]byte, 64)
	copy(attr, c.Memory(c.Args[1], min(len(attr), int(c.Args[2]))))
	switch b.Cmd {
	case unix.BPF_MAP_CREATE:
		b.Name = unix.ByteSliceToString(attr[28:44])
	case unix.BPF_PROG_LOAD:
		b.Name = unix.ByteSliceToString(attr[48:64])
	case unix.BPF_LINK_CREATE:
		b.AttachType = binary.NativeEndian.Uint32(attr[8:])
	}
	return b
}

// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// A shortageError says what ran out while attaching. It is an ErrNotSupported, for
// there is no metadata, but a passing one: nobody is to remember it.
type shortageError struct {
	of  string
	err error
}

func (e *shortageError) Error() string {
	return fmt.Sprintf("no metadata for now: %s: %v", e.of, e.err)
}

func (e *shortageError) Unwrap() []error { return []error{ErrNotSupported, e.err} }

// shortages are the errors that pass, and whose limit it is.
var shortages = []struct {
	errno unix.Errno
	of    string
}{
	{unix.EMFILE, "this process has no file descriptors left (RLIMIT_NOFILE: ulimit -n, LimitNOFILE=)"},
	{unix.ENFILE, "this host has no file descriptors left (sysctl fs.file-max)"},
	{unix.ENOMEM, "no memory left for programs and maps, of the host or of this process's memory cgroup (memory.max)"},
	{unix.ENOBUFS, "no memory left for programs and maps, of the host or of this process's memory cgroup (memory.max)"},
	{unix.EAGAIN, "the kernel could not do it at that moment"},
	{unix.EINTR, "a signal interrupted it"},
}

// errMasked stands for an error that the loader has replaced.
var errMasked = errors.New("the kernel refused a map that it makes at other times, for want of memory (memory.max) or file descriptors (RLIMIT_NOFILE)")

// asShortage returns the error as a shortageError, nil where it is none.
func asShortage(err error) error {
	var already *shortageError
	if errors.As(err, &already) {
		return err
	}
	for _, s := range shortages {
		if errors.Is(err, s.errno) {
			return &shortageError{s.of, err}
		}
	}
	// Of a map that cannot be made the loader says that its flags need a newer
	// kernel, if its own attempt to make one fails, too, from whatever cause
	// (handleMapCreateError in github.com/cilium/ebpf/map.go), and says so ever after.
	if errors.Is(err, ebpf.ErrNotSupported) && strings.Contains(err.Error(), "map create: ") && rehearse() == nil {
		return &shortageError{errMasked.Error(), err}
	}
	return nil
}

// descriptorsOfAttaching is more than attaching has open at a time.
const descriptorsOfAttaching = 96

// reserve says whether there are descriptors to attach by, before the loader needs
// them: it takes their lack for an old kernel's, and remembers that for good.
func reserve() error {
	var fds []int
	defer func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}()
	for range descriptorsOfAttaching {
		// Not dup, which does not count for fs.file-max.
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
		if err != nil {
			return asShortage(fmt.Errorf("attaching takes %d: %w", descriptorsOfAttaching, os.NewSyscallError("eventfd", err)))
		}
		fds = append(fds, fd)
	}
	return nil
}

// rehearsalName is that of what rehearse makes.
const rehearsalName = "sockmeta_try"

// rehearse makes what the loader tries, to know the kernel: a map with a name, and a
// program that reads the kernel's memory. The loader takes every failure of these for
// an old kernel's, and remembers it: it would load without names, by which others
// find the maps, or with a helper that the kernel does not let us use. Nothing that
// attaches does without them.
func rehearse() error {
	m := struct {
		typ, key, value, entries, flags, inner, node uint32
		name                                         [16]byte
	}{typ: uint32(ebpf.Array), key: 4, value: 4, entries: 1, flags: unix.BPF_F_MMAPABLE}
	copy(m.name[:], rehearsalName)
	fd, err := bpfCall(unix.BPF_MAP_CREATE, unsafe.Pointer(&m), unsafe.Sizeof(m))
	if err != nil {
		return fmt.Errorf("load: map %s: %w", rehearsalName, err)
	}
	_ = unix.Close(int(fd))
	if err := readsKernel(); err != nil {
		return fmt.Errorf("load: program %s, with bpf_probe_read_kernel: %w", rehearsalName, err)
	}
	return nil
}

// readsKernel returns nil where programs in cgroups may read the kernel's memory, and
// EINVAL where it is locked down (bpf_base_func_proto in kernel/bpf/helpers.c). The
// loader cannot be asked: it puts another helper in the place of this one.
func readsKernel() error {
	var insns bytes.Buffer
	order := binary.ByteOrder(binary.LittleEndian)
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		order = binary.BigEndian
	}
	if err := (asm.Instructions{
		asm.Mov.Reg(asm.R1, asm.R10),
		asm.Add.Imm(asm.R1, -8),
		asm.Mov.Imm(asm.R2, 8),
		asm.Mov.Imm(asm.R3, 0),
		asm.FnProbeReadKernel.Call(),
		asm.Mov.Imm(asm.R0, 1),
		asm.Return(),
	}).Marshal(&insns, order); err != nil {
		return err
	}
	license := []byte("GPL\x00")
	var pinned pinner
	defer pinned.Unpin()
	p := struct {
		typ, count        uint32
		insns, license    uint64
		logLevel, logSize uint32
		log               uint64
		version, flags    uint32
		name              [16]byte
	}{
		typ: uint32(ebpf.CGroupSKB), count: uint32(insns.Len() / asm.InstructionSize),
		insns:   pinned.address(unsafe.Pointer(&insns.Bytes()[0])),
		license: pinned.address(unsafe.Pointer(&license[0])),
	}
	copy(p.name[:], rehearsalName)
	fd, err := bpfCall(unix.BPF_PROG_LOAD, unsafe.Pointer(&p), unsafe.Sizeof(p))
	if err != nil {
		return err
	}
	return unix.Close(int(fd))
}

// A pinner keeps memory where it is while the kernel has its address.
type pinner struct{ runtime.Pinner }

func (p *pinner) address(to unsafe.Pointer) uint64 {
	p.Pin((*byte)(to))
	return uint64(uintptr(to))
}

// bpfCall is bpf(2). A program's verification ends with EAGAIN when a signal comes, as
// the runtime sends them.
func bpfCall(cmd uintptr, attr unsafe.Pointer, size uintptr) (uintptr, error) {
	for tries := 0; ; tries++ {
		r, _, errno := unix.Syscall(unix.SYS_BPF, cmd, uintptr(attr), size)
		switch {
		case errno == 0:
			return r, nil
		case errno != unix.EAGAIN && errno != unix.EINTR || tries == 10:
			return 0, os.NewSyscallError("bpf", errno)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
)

// pages maps memory that nobody has touched.
func pages(t testing.TB, n, prot int) []byte {
	t.Helper()
	b, err := unix.Mmap(-1, 0, n*unix.Getpagesize(), prot, unix.MAP_ANON|unix.MAP_PRIVATE)
	must(t, err)
	t.Cleanup(func() { _ = unix.Munmap(b) })
	return b
}

// TestNativeMemory has buffers for control messages in memory of all kinds.
func TestNativeMemory(t *testing.T) {
	lab := newNativeLab(t)
	attachEchoUDP(t, lab.Pair)
	const controllen = 1024
	size := unix.Getpagesize()
	gone := func(t *testing.T) unsafe.Pointer {
		b := pages(t, 1, unix.PROT_READ|unix.PROT_WRITE)
		p := unsafe.Pointer(&b[0])
		// The whole of it stays reserved, so that nothing else gets the place.
		must(t, unix.Mprotect(b, unix.PROT_NONE))
		return p
	}
	for _, tt := range []struct {
		name    string
		control func(t *testing.T) unsafe.Pointer
		written bool // the record is in it
	}{
		{"untouched", func(t *testing.T) unsafe.Pointer {
			return unsafe.Pointer(&pages(t, 1, unix.PROT_READ|unix.PROT_WRITE)[0])
		}, true},
		{"untouched, across pages", func(t *testing.T) unsafe.Pointer {
			return unsafe.Pointer(&pages(t, 2, unix.PROT_READ|unix.PROT_WRITE)[size-24])
		}, true},
		{"read before", func(t *testing.T) unsafe.Pointer {
			b := pages(t, 1, unix.PROT_READ|unix.PROT_WRITE)
			if b[0] != 0 {
				t.Error("not empty")
			}
			return unsafe.Pointer(&b[0])
		}, true},
		{"thrown away", func(t *testing.T) unsafe.Pointer {
			b := pages(t, 1, unix.PROT_READ|unix.PROT_WRITE)
			b[0] = 1
			must(t, unix.Madvise(b, unix.MADV_DONTNEED))
			return unsafe.Pointer(&b[0])
		}, true},
		{"of a file", func(t *testing.T) unsafe.Pointer {
			f, err := os.CreateTemp(t.TempDir(), "control")
			must(t, err)
			defer f.Close()
			must(t, f.Truncate(int64(size)))
			b, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			must(t, err)
			t.Cleanup(func() { _ = unix.Munmap(b) })
			return unsafe.Pointer(&b[0])
		}, true},
		{"of a file that is too short", func(t *testing.T) unsafe.Pointer {
			f, err := os.CreateTemp(t.TempDir(), "control")
			must(t, err)
			defer f.Close()
			b, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			must(t, err)
			t.Cleanup(func() { _ = unix.Munmap(b) })
			return unsafe.Pointer(&b[0])
		}, false},
		{"read-only", func(t *testing.T) unsafe.Pointer {
			return unsafe.Pointer(&pages(t, 1, unix.PROT_READ)[0])
		}, false},
		{"no access", gone, false},
		{"read-only behind", func(t *testing.T) unsafe.Pointer {
			b := pages(t, 2, unix.PROT_READ|unix.PROT_WRITE)
			must(t, unix.Mprotect(b[size:], unix.PROT_READ))
			return unsafe.Pointer(&b[size-24])
		}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lab.t = t
			for _, k := range udpKinds(lab.Pair)[:2] {
				fd, client := lab.open(k), k.dial(t, lab.Pair)
				for id := range uint64(3) {
					control := tt.control(t)
					send(t, client, numbered(id))
					b := make([]byte, 64)
					flags, oobn, n, err := recvInto(fd, control, controllen, b)
					must(t, err)
					if string(b[:n]) != numbered(id) {
						t.Errorf("payload is %x", b[:n])
					}
					if !tt.written {
						if flags != unix.MSG_CTRUNC || oobn != 0 {
							t.Errorf("flags %#x, %d bytes of control messages", flags, oobn)
						}
						continue
					}
					oob := unsafe.Slice((*byte)(control), oobn)
					if got, err := recordID(oob); err != nil || got != id || flags != 0 {
						t.Errorf("record of %d, %v, flags %#x", got, err, flags)
					}
				}
			}
		})
	}
}

// recvInto is recvmsg with nothing of Go's allocator in it but b.
func recvInto(fd int, control unsafe.Pointer, controllen int, b []byte) (flags, oobn, n int, err error) {
	iov := unix.Iovec{Base: &b[0]}
	iov.SetLen(len(b))
	msg := unix.Msghdr{Iov: &iov, Control: (*byte)(control)}
	msg.SetIovlen(1)
	msg.SetControllen(controllen)
	for {
		r, _, errno := unix.Syscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&msg)), 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return 0, 0, 0, os.NewSyscallError("recvmsg", errno)
		}
		return int(msg.Flags), int(msg.Controllen), int(r), nil
	}
}

// TestNativeInterrupted has signals come in the middle of recvmsg, again and again:
// what is received afterwards has its own record.
func TestNativeInterrupted(t *testing.T) {
	lab := newNativeLab(t)
	attachEchoUDP(t, lab.Pair)
	k := udpKinds(lab.Pair)[0]
	fd, client := lab.open(k), k.dial(t, lab.Pair)
	var tid atomic.Int32
	results := make(chan error, 1)
	var interrupted atomic.Int64
	const datagrams = 200
	go func() {
		runtime.LockOSThread()
		tid.Store(int32(unix.Gettid()))
		results <- func() error {
			b, oob := make([]byte, 64), make([]byte, 512)
			for got := uint64(0); got < datagrams; {
				n, oobn, flags, _, err := unix.Recvmsg(fd, b, oob, 0)
				if errors.Is(err, unix.EINTR) {
					interrupted.Add(1)
					continue
				}
				if err != nil {
					return err
				}
				id, err := recordID(oob[:oobn])
				if err != nil || id != idOf(b[:n]) || id != got || flags != 0 {
					return fmt.Errorf("datagram %d: record of %d, %w, flags %#x", idOf(b[:n]), id, err, flags)
				}
				got++
			}
			return nil
		}()
	}()
	for tid.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	for id := range uint64(datagrams) {
		for range 3 {
			// Go's own, which its runtime takes for a false alarm.
			must(t, unix.Tgkill(unix.Getpid(), int(tid.Load()), unix.SIGURG))
			time.Sleep(200 * time.Microsecond)
		}
		send(t, client, numbered(id))
	}
	must(t, <-results)
	t.Logf("%d calls were interrupted", interrupted.Load())
	// It gives up by itself.
	short := unix.NsecToTimeval(int64(time.Millisecond))
	must(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &short))
	if _, err := receiveFrom(fd, true, 0); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("received: %v", err)
	}
}

// TestNativeKilled kills processes that are in recvmsg.
func TestNativeKilled(t *testing.T) {
	lab := newNativeLab(t)
	attachEchoUDP(t, lab.Pair)
	k := udpKinds(lab.Pair)[0]
	fd, client := lab.open(k), k.dial(t, lab.Pair)
	file := os.NewFile(uintptr(must2(t)(unix.Dup(fd))), "socket")
	defer file.Close()
	for range 10 {
		cmd := testutil.ChildCommand("nativeReceiver")
		cmd.ExtraFiles = []*os.File{file}
		must(t, cmd.Start())
		time.Sleep(20 * time.Millisecond)
		must(t, cmd.Process.Kill())
		_ = cmd.Wait()
	}
	send(t, client, numbered(3))
	r, err := receiveFrom(fd, true, 0)
	lab.got(t, r, err, 3)
}

func must2(t testing.TB) func(int, error) int {
	return func(n int, err error) int {
		t.Helper()
		must(t, err)
		return n
	}
}

func init() { children["nativeReceiver"] = nativeReceiver }

// nativeReceiver waits in recvmsg for what never comes.
func nativeReceiver() error {
	_, _, _, _, err := unix.Recvmsg(3, make([]byte, 64), make([]byte, 512), 0)
	return err
}

// TestNativeManyMessages sends datagrams with as many control messages as the kernel
// takes, and more: the record is the last of them.
func TestNativeManyMessages(t *testing.T) {
	lab := newRawLab(t, bpf.Options{})
	if !lab.native() {
		t.Skip("the kernel has no functions for control messages: load the module of bpf/kmod")
	}
	const optmem = "/proc/sys/net/core/optmem_max"
	b, err := os.ReadFile(optmem)
	must(t, err)
	room, err := strconv.Atoi(strings.TrimSpace(string(b)))
	must(t, err)
	// Of this namespace alone since Linux 6.8.
	raise := func(to int) {
		must(t, lab.Client.Do(func() error { return os.WriteFile(optmem, []byte(strconv.Itoa(to)), 0) }))
	}
	empty := cmsg.Append(nil, cmsg.SOL_BPF, cmsg.SCM_RECORD+1, nil)
	for _, k := range lab.kinds() {
		c := lab.open(k)
		must(t, c.send(bytes.Repeat(empty, 1000), nil))
		err := c.write(rawPayload(1), append(bytes.Repeat(empty, max(10_000, room/len(empty))), rawRecord(1)...))
		if !errors.Is(err, unix.ENOBUFS) {
			t.Errorf("sent 10,000 control messages: %v", err)
		}
		raise(1 << 20)
		must(t, c.send(bytes.Repeat(empty, 10_000), nil))
		must(t, c.send(nil, bytes.Repeat(empty, 10_000)))
		raise(room)
		must(t, c.sendWithout(nil))
	}
	lab.settle(t)
}

// TestNativeCompat has a 32-bit process receive by a socket that opted in, in its own
// layout.
func TestNativeCompat(t *testing.T) {
	program := client32(t)
	lab := newNativeLab(t)
	attachEchoUDP(t, lab.Pair)
	for _, k := range udpKinds(lab.Pair)[:2] {
		t.Run(k.name, func(t *testing.T) {
			lab.t = t
			fd, client := lab.open(k), k.dial(t, lab.Pair)
			socket := os.NewFile(uintptr(must2(t)(unix.Dup(fd))), "socket")
			defer socket.Close()
			const datagrams = 64
			for id := range uint64(datagrams) {
				send(t, client, numbered(id))
			}
			cmd := exec.CommandContext(t.Context(), "/proc/self/fd/3", "receive", fmt.Sprint(datagrams))
			cmd.ExtraFiles = []*os.File{program, socket}
			out, err := cmd.CombinedOutput()
			if errors.Is(err, unix.ENOEXEC) {
				t.Skipf("the kernel runs no 32-bit programs (CONFIG_IA32_EMULATION, CONFIG_COMPAT): %v", err)
			}
			if err != nil || !strings.Contains(string(out), "32 bits") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

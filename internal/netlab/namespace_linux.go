// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// Namespace is a network namespace that exists as long as it's open or sockets
// or processes are in it. Its methods may be called concurrently.
type Namespace struct {
	file *os.File
}

// New creates a network namespace in which the loopback interface is up and
// IPv6 addresses are usable without duplicate address detection.
func New() (*Namespace, error) {
	ns := new(Namespace)
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		f, err := os.Open(threadNetns)
		if err != nil {
			return err
		}
		ns.file = f
		skipDAD()
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("netlab: new namespace: %w", err)
	}
	if err := SetUp(ns, "lo"); err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return ns, nil
}

// FromFile returns the namespace that a file of /proc stands for, as that of a
// process. It owns the file.
func FromFile(f *os.File) *Namespace { return &Namespace{file: f} }

// Do runs f with the calling thread inside the namespace and returns f's error.
//
// Sockets created by f belong to the namespace for good and may be used
// anywhere afterwards. Goroutines that f starts are not in the namespace, and
// that includes those the net package starts to resolve names or to dial more
// than one address.
//
// f runs on a goroutine of its own. Where it panics Do panics, and where it
// calls [runtime.Goexit] so does Do.
func (ns *Namespace) Do(f func() error) error {
	return onThread(func() error {
		err := ns.control(func(fd int) error {
			return unix.Setns(fd, unix.CLONE_NEWNET)
		})
		if err != nil {
			return fmt.Errorf("netlab: enter namespace: %w", err)
		}
		return f()
	})
}

// File returns the open namespace, to be passed to other processes or to
// setns(2). It remains owned by ns and is closed with it.
func (ns *Namespace) File() *os.File { return ns.file }

// Close releases the namespace. The kernel removes it, with all links in it,
// once no socket or process is in it any more. Closing it again does nothing.
func (ns *Namespace) Close() error {
	if err := ns.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("netlab: close namespace: %w", err)
	}
	return nil
}

// control calls f with a file descriptor that stays open until f returns, even
// if Close is called meanwhile.
func (ns *Namespace) control(f func(fd int) error) error {
	raw, err := ns.file.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if raw.Control(func(fd uintptr) { ferr = f(int(fd)) }) != nil {
		// It has no other reason to fail, but fails with an internal
		// error.
		return os.ErrClosed
	}
	return ferr
}

const threadNetns = "/proc/thread-self/ns/net"

// onThread runs f, which may change the network namespace of its thread, on a
// goroutine of its own and waits for it.
func onThread(f func() error) error {
	var (
		err      error
		panicked any
		returned bool
		done     = make(chan struct{})
	)
	go func() {
		defer close(done)
		defer func() {
			if v := recover(); v != nil {
				panicked = fmt.Sprintf("netlab: %v [recovered]\n\n%s", v, debug.Stack())
			}
		}()
		err = onThisThread(f)
		returned = true
	}()
	<-done

	switch {
	case panicked != nil:
		panic(panicked)
	case !returned:
		runtime.Goexit()
	}
	return err
}

// onThisThread runs f, which may change the network namespace of its thread.
// A thread that can't be taken back to where it was is not used again.
func onThisThread(f func() error) error {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// The main thread stands for the process in /proc and can't be
		// destroyed. While it's held here another goroutine gets
		// another thread.
		defer runtime.UnlockOSThread()
		return onThread(f)
	}

	home, err := os.Open(threadNetns)
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer func() {
		// The runtime destroys the thread of a goroutine that ends while
		// locked to it.
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		home.Close()
	}()
	return f()
}

// skipDAD turns off duplicate address detection for interfaces that will be
// created in the thread's namespace. It matters to link-local addresses only,
// as all others are added with IFA_F_NODAD; where /proc/sys is read-only those
// merely take a second longer to become usable.
func skipDAD() {
	for _, which := range []string{"all", "default"} {
		_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+which+"/accept_dad", []byte("0"), 0)
	}
}

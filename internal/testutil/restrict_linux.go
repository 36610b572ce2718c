// SPDX-License-Identifier: Apache-2.0

package testutil

import (
	"fmt"
	"os"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// restrictThread gives the calling thread what the processes it starts are to
// inherit from it. The thread must not be used for anything else afterwards.
func (o *ChildOptions) restrictThread() error {
	if o.Netns != nil {
		if err := unix.Setns(int(o.Netns.File().Fd()), unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("setns", err)
		}
	}
	if o.Mounts != nil {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return os.NewSyscallError("mount", err)
		}
		if err := o.Mounts(); err != nil {
			return err
		}
	}
	if drop := o.dropped(); len(drop) != 0 {
		if err := dropCaps(drop); err != nil {
			return err
		}
	}
	if o.NoNewPrivs {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return os.NewSyscallError("prctl(PR_SET_NO_NEW_PRIVS)", err)
		}
	}
	return nil
}

// dropped returns the capabilities the child must not have.
func (o *ChildOptions) dropped() []uintptr {
	if o.UID == 0 && o.KeepCaps == nil {
		return o.DropCaps
	}
	drop := slices.Clone(o.DropCaps)
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if !slices.Contains(o.KeepCaps, c) {
			drop = append(drop, c)
		}
	}
	return drop
}

// dropCaps keeps whatever the thread executes from having the given
// capabilities. The thread itself retains those it has, as it may need them to
// change the child's user.
//
// On execve root gets the union of the inheritable and the bounding set, and
// others the ambient set, a subset of the inheritable one.
func dropCaps(caps []uintptr) error {
	for _, c := range caps {
		// The kernel may know fewer capabilities than this package.
		if err := unix.Prctl(unix.PR_CAPBSET_READ, c, 0, 0, 0); err == unix.EINVAL {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
			return fmt.Errorf("prctl(PR_CAPBSET_DROP, %s): %w", capName(c), err)
		}
	}

	data, err := threadCaps()
	if err != nil {
		return err
	}
	for _, c := range caps {
		data[c/32].Inheritable &^= 1 << (c % 32)
	}
	hdr := capHeader
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		return os.NewSyscallError("capset", err)
	}
	return nil
}

// onThrowawayThread runs f on a thread that is destroyed afterwards, and waits
// for it.
func onThrowawayThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The main thread can't be destroyed. While this goroutine
			// holds it another one gets a different thread.
			done <- onThrowawayThread(f)
			runtime.UnlockOSThread()
			return
		}
		done <- f()
	}()
	return <-done
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// cpus are the processors that a comparison uses. Where there is one only, both
// are it.
type cpus struct {
	// reader is whose work is timed, sender is whose packets, and the kernel's work
	// on them, are not to disturb it.
	reader, sender int
	all            unix.CPUSet
}

func findCPUs() (c cpus, err error) {
	if err := unix.SchedGetaffinity(0, &c.all); err != nil {
		return c, os.NewSyscallError("sched_getaffinity", err)
	}
	var usable []int
	for i := range len(c.all) * 64 {
		if c.all.IsSet(i) {
			usable = append(usable, i)
		}
	}
	// The first takes most of a machine's interrupts.
	c.reader, c.sender = usable[len(usable)-1], usable[0]
	return c, nil
}

// pin keeps the calling thread, which has to be the goroutine's own, on a CPU.
func pin(cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	return os.NewSyscallError("sched_setaffinity", unix.SchedSetaffinity(0, &set))
}

func (c *cpus) unpin() error {
	return os.NewSyscallError("sched_setaffinity", unix.SchedSetaffinity(0, &c.all))
}

// A worker is a goroutine with a thread of its own that stays on one CPU.
type worker struct {
	calls chan func() error
	done  chan error
}

func startWorker(cpu int) (*worker, error) {
	w := &worker{calls: make(chan func() error), done: make(chan error)}
	go func() {
		// Never unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		w.done <- pin(cpu)
		for f := range w.calls {
			w.done <- f()
		}
	}()
	if err := <-w.done; err != nil {
		_ = w.stop()
		return nil, err
	}
	return w, nil
}

// do has the worker call f and returns what that returned.
func (w *worker) do(f func() error) error {
	w.begin(f)
	return <-w.done
}

// begin has the worker call f; w.done tells when it has.
func (w *worker) begin(f func() error) { w.calls <- f }

// stop ends the thread, and with it what only it has, and returns when it has
// begun to.
func (w *worker) stop() error {
	close(w.calls)
	return nil
}

// onCPU calls f on a thread that is on a CPU.
func onCPU(cpu int, f func() error) error {
	w, err := startWorker(cpu)
	if err != nil {
		return err
	}
	defer w.stop()
	return w.do(f)
}

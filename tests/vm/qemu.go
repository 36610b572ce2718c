// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"
)

const (
	qemu = "qemu-system-x86_64"

	guestMemory = "2G"

	// bootTime is what a kernel has to start the first process, and
	// bootTries how often it may fail to: emulated CPUs and kernels don't
	// always get along.
	bootTime  = 3 * time.Minute
	bootTries = 3
)

// patience makes a kernel complain of a CPU that gets nowhere after minutes: one
// that is emulated may not have run for as long as a real one would be stuck.
const patience = "watchdog_thresh=60 rcupdate.rcu_cpu_stall_timeout=180"

// plainSpeed leaves out what protects against attacks on real CPUs, and what clears
// memory that is about to be written: emulated, both take time, and no test is about
// them.
const plainSpeed = "mitigations=off init_on_alloc=0 hardened_usercopy=off"

var errEarlyDeath = errors.New("the kernel did not get to its first process")

// cpu returns the CPU to emulate for a kernel.
func cpu(series string) string {
	if series == "6.12" {
		// It dies early every now and then where it finds cmpxchg16b.
		return "max,la57=off,cx16=off"
	}
	// The fifth level of page tables has more to be walked, by software here.
	return "max,la57=off"
}

// machine is a virtual machine to be run.
type machine struct {
	kernel    kernel
	initramfs string
	// append is added to the kernel's command line.
	append string
	// console is a file for what the kernel prints.
	console string
	// live gets what the tests print as they do, if it isn't nil.
	live io.Writer
}

// boot runs the machine until it switches itself off, again if it dies early.
// The kernel's messages of the last try are in the file m.console.
func (m *machine) boot(ctx context.Context) (t *transcript, took cost, err error) {
	for range bootTries {
		t, took, err = m.bootOnce(ctx)
		if !errors.Is(err, errEarlyDeath) || ctx.Err() != nil {
			break
		}
	}
	return t, took, err
}

// cost is what a run takes: until the first process, and of processors in all.
type cost struct{ boot, cpu time.Duration }

func (m *machine) bootOnce(ctx context.Context) (t *transcript, took cost, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, qemu,
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		// With a thread for each CPU one of them may still execute a
		// breakpoint that another, patching the kernel's code, has
		// taken away: the kernel panics on it.
		"-accel", "tcg,thread=single,tb-size=512",
		"-cpu", cpu(m.kernel.series), "-smp", fmt.Sprintf("%d,maxcpus=%d", presentCPUs, possibleCPUs), "-m", guestMemory,
		"-kernel", m.kernel.image, "-initrd", m.initramfs,
		"-append", strings.TrimSpace("console=ttyS0 ignore_loglevel panic=-1 "+patience+" "+plainSpeed+" rdinit=/init "+guestEnv+"=1 "+m.append),
		"-serial", "file:"+m.console,
		"-chardev", "stdio,id=report,signal=off", "-serial", "chardev:report",
	)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, took, err
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, took, err
	}
	watchdog := time.AfterFunc(bootTime, cancel)
	defer watchdog.Stop()

	t = new(transcript)
	for r := bufio.NewReader(stdout); ; {
		line, err := r.ReadString('\n')
		t.add(line)
		if m.live != nil {
			fmt.Fprint(m.live, line)
		}
		if took.boot == 0 && t.release != "" {
			took.boot = time.Since(start)
			watchdog.Stop()
		}
		if err != nil {
			break
		}
	}
	err = cmd.Wait()
	took.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	switch {
	case t.done:
		return t, took, nil
	case t.release == "":
		return t, took, fmt.Errorf("%w: %v %s", errEarlyDeath, err, strings.TrimSpace(stderr.String()))
	case ctx.Err() != nil:
		return t, took, fmt.Errorf("stopped before all tests had run: %w", context.Cause(ctx))
	}
	return t, took, fmt.Errorf("the virtual machine ended before its tests did: %v %s", err, strings.TrimSpace(stderr.String()))
}

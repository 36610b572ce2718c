// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// guest is the life of the virtual machine's first process: it makes a machine
// that tests can run on, runs them and switches the machine off.
func guest() {
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "vm:", err)
	}
	// Without hardware to switch off this ends the process, which is a panic
	// of the kernel and ends QEMU just as well.
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func serve() error {
	if err := mountAll(); err != nil {
		return err
	}
	line, err := openReportLine("/dev/ttyS1")
	if err != nil {
		return err
	}
	report := func(word, what string) {
		// Tests may leave an unfinished line behind.
		fmt.Fprintf(line, "\n%s%s %s\n", reportMark, word, strings.ReplaceAll(what, "\n", "; "))
	}
	err = runPlan(line, report)
	if err != nil {
		report(reportError, err.Error())
	}
	report(reportDone, "")
	// Not before all has left, which a tty does on its own time.
	return errors.Join(err, unix.IoctlSetInt(int(line.Fd()), unix.TCSBRK, 1))
}

func mountAll() error {
	for _, m := range []struct{ kind, dir, data string }{
		{"proc", "/proc", ""},
		{"sysfs", "/sys", ""},
		{"devtmpfs", "/dev", ""},
		{"cgroup2", "/sys/fs/cgroup", ""},
		{"bpf", "/sys/fs/bpf", "mode=700"},
		{"tmpfs", "/tmp", "mode=1777"},
	} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.dir, m.kind, 0, m.data); err != nil {
			return fmt.Errorf("mount %s: %w", m.kind, err)
		}
	}
	// What udev makes of /dev elsewhere.
	for name, target := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2",
	} {
		if err := os.Symlink(target, filepath.Join("/dev", name)); err != nil {
			return err
		}
	}
	return nil
}

// openReportLine opens a serial line that leaves bytes as they are.
func openReportLine(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	raw := unix.Termios{Cflag: unix.CS8 | unix.CREAD | unix.CLOCAL | unix.B115200}
	if err := unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, &raw); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return f, nil
}

func runPlan(line *os.File, report func(word, what string)) error {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return err
	}
	report(reportBoot, unix.ByteSliceToString(uts.Release[:]))

	data, err := os.ReadFile(planFile)
	if err != nil {
		return err
	}
	var p plan
	if err := json.Unmarshal(data, &p); err != nil {
		return err
	}
	if err := loopbackUp(); err != nil {
		report(reportError, fmt.Sprint("loopback: ", err))
	}
	for _, m := range p.Modules {
		if err := loadModule(m); err != nil {
			report(reportError, fmt.Sprintf("module %s: %v", m, err))
		}
	}
	for i, t := range p.Tests {
		report(reportBegin, t.Package)
		logToKernel("begin " + t.Package)
		how := exitedOK
		if err := runTest(i, t, line); err != nil {
			how = err.Error()
		}
		report(reportEnd, how)
	}
	return nil
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}

func loadModule(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", 0)
}

// logToKernel puts a line between the kernel's own, so that one can tell what
// those were about.
func logToKernel(line string) {
	_ = os.WriteFile("/dev/kmsg", []byte("vm: "+line), 0)
}

// runTest runs a test binary in a cgroup of its own, as on other systems no
// process is in the root.
func runTest(i int, t guestTest, line *os.File) error {
	dir := fmt.Sprintf("/sys/fs/cgroup/test%d", i)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	cgroup, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer cgroup.Close()

	ctx, cancel := context.WithTimeoutCause(context.Background(), t.Timeout, errors.New("killed as it didn't end"))
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(t.Dir, t.Binary), t.Args...)
	cmd.Dir = t.Dir
	cmd.Env = append([]string{"HOME=/tmp", "PATH=/bin", "PWD=" + t.Dir}, t.Env...)
	cmd.Stdout, cmd.Stderr = line, line
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, UseCgroupFD: true, CgroupFD: int(cgroup.Fd())}
	// Children of the test binary have to go with it.
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	return nil
}

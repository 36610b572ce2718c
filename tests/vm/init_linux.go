// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const cgroupDir = "/sys/fs/cgroup"

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
	if err := mountAll(os.Getenv(cgroup1Env) != ""); err != nil {
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

type mount struct{ kind, dir, data string }

func mountAll(cgroup1 bool) error {
	mounts := []mount{
		{"proc", "/proc", ""},
		{"sysfs", "/sys", ""},
		{"devtmpfs", "/dev", ""},
		{"securityfs", "/sys/kernel/security", ""},
		{"bpf", "/sys/fs/bpf", "mode=700"},
		{"tmpfs", "/tmp", "mode=1777"},
	}
	if cgroup1 {
		mounts = append(mounts,
			mount{"tmpfs", "/sys/fs/cgroup", "mode=755"},
			mount{"cgroup", "/sys/fs/cgroup/systemd", "none,name=systemd"})
	} else {
		mounts = append(mounts, mount{"cgroup2", cgroupDir, ""})
	}
	for _, m := range mounts {
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
	if err := takeOffline(offlineCPU); err != nil {
		report(reportError, err.Error())
	}
	for _, m := range p.Modules {
		if err := loadModule(m); err != nil {
			report(reportError, fmt.Sprintf("module %s: %v", m, err))
		}
	}
	for i, t := range p.Tests {
		report(reportBegin, t.Package)
		logToKernel("begin " + t.Package)
		report(reportEnd, runGuestTest(i, t, line))
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

func takeOffline(cpu int) error {
	return os.WriteFile(fmt.Sprintf("/sys/devices/system/cpu/cpu%d/online", cpu), []byte("0"), 0)
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

// runGuestTest runs a test binary, if there are cgroups in one of its own, as on
// other systems no process is in the root.
func runGuestTest(i int, t testRun, line *os.File) (ended string) {
	t.Env = append([]string{"HOME=/tmp", "PATH=/bin"}, t.Env...)
	if os.Getenv(cgroup1Env) != "" {
		return t.run(context.Background(), "", line)
	}
	cgroup := fmt.Sprintf("%s/test%d", cgroupDir, i)
	if err := os.Mkdir(cgroup, 0o755); err != nil {
		return err.Error()
	}
	return t.run(context.Background(), cgroup, line)
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// run runs the test binary in a cgroup, unless that's empty, and says how it
// ended. Nothing that it started remains.
func (t *testRun) run(ctx context.Context, cgroup string, out io.Writer) (ended string) {
	ctx, cancel := context.WithTimeoutCause(ctx, t.Timeout, errors.New("killed as it didn't end"))
	defer cancel()
	cmd := exec.CommandContext(ctx, t.File, t.Args...)
	cmd.Dir = t.Dir
	cmd.Env = t.Env
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// Children of the test binary have to go with it.
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	if cgroup != "" {
		dir, err := os.Open(cgroup)
		if err != nil {
			return err.Error()
		}
		defer dir.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
		defer os.WriteFile(filepath.Join(cgroup, "cgroup.kill"), []byte("1"), 0)
	}
	err := cmd.Run()
	switch {
	case err == nil:
		return exitedOK
	case ctx.Err() != nil:
		return context.Cause(ctx).Error()
	}
	return err.Error()
}

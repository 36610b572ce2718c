// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/internal/netlab"
)

// runHost runs the tests on the host's kernel and notes in r how they went.
func (o *options) runHost(ctx context.Context, tests []testBinary, s testSettings, r *run) error {
	if os.Geteuid() != 0 {
		return errors.New("tests on the host need root")
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return err
	}
	r.Release = unix.ByteSliceToString(uts.Release[:])
	progress("%s: run on %s", r.Kernel, r.Release)
	limits, err := hostLimits()
	if err != nil {
		return err
	}
	r.Conditions = append(r.Conditions, limits...)
	start := time.Now()
	var sections []*section
	for _, b := range tests {
		t := newTestRun(b, b.dir, b.file, s)
		t.Env = append(os.Environ(), t.Env...)
		s := &section{pkg: b.pkg}
		out := io.Writer(&s.output)
		if o.live != nil {
			fmt.Fprintln(o.live, b.pkg)
			out = io.MultiWriter(out, o.live)
		}
		if err := runInCgroup(ctx, s, t, out); err != nil {
			return err
		}
		sections = append(sections, s)
	}
	r.Seconds = time.Since(start).Seconds()
	progress("%s: done in %.0f s", r.Kernel, r.Seconds)
	return r.collect(ctx, tests, sections)
}

// runInCgroup runs a test binary in a cgroup of its own: having killed what was in
// one, the kernel kills all that is started in there.
func runInCgroup(ctx context.Context, s *section, t testRun, out io.Writer) (err error) {
	cg, err := netlab.NewCgroup("vm")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cg.Close()) }()
	s.ended = t.run(ctx, cg.Path(), out)
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"path"
	"time"
)

// testRun is a test binary to run, in the virtual machine or on the host.
type testRun struct {
	Package string
	// Dir is its working directory, File the binary.
	Dir, File string
	Args, Env []string
	// Timeout is when it's killed, which is after its own timeout.
	Timeout time.Duration
}

// exitedOK is how a test binary ends in which all is well.
const exitedOK = "exit status 0"

// testSettings are what all test binaries are run with.
type testSettings struct {
	run     string
	skip    string
	short   bool
	timeout time.Duration
}

// killAfter is how long a test binary may go on after its own timeout, at which
// it prints what it's doing.
const killAfter = 15 * time.Second

// newTestRun returns how to run a test binary, the file, in the directory dir.
func newTestRun(b testBinary, dir, file string, s testSettings) testRun {
	t := testRun{
		Package: b.pkg,
		Dir:     dir,
		File:    file,
		Args:    []string{"-test.v=test2json", "-test.timeout=" + s.timeout.String()},
		Env:     []string{"PWD=" + dir},
		Timeout: s.timeout + killAfter,
	}
	if s.short {
		t.Args = append(t.Args, "-test.short")
	}
	if s.run != "" {
		t.Args = append(t.Args, "-test.run="+s.run)
	}
	if s.skip != "" {
		t.Args = append(t.Args, "-test.skip="+s.skip)
	}
	return t
}

// guestTestDir is the directory in the virtual machine that has a package's test
// binary and what belongs to it.
func guestTestDir(pkg string) string { return path.Join("/src", shortName(pkg)) }

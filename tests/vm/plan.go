// SPDX-License-Identifier: Apache-2.0

package main

import "time"

// guestEnv is in the environment of the virtual machine's first process, where
// the kernel puts what it doesn't know on its command line. It makes this
// program act as that process.
const guestEnv = "SOCKMETA_VM_GUEST"

// planFile is where the virtual machine finds its plan.
const planFile = "/plan.json"

// plan is what the virtual machine has to do.
type plan struct {
	// Modules are files of kernel modules, to be loaded in this order.
	Modules []string
	Tests   []guestTest
}

// guestTest is a test binary to run.
type guestTest struct {
	Package string
	// Dir is its working directory and where its file Binary is.
	Dir, Binary string
	Args, Env   []string
	// Timeout is when it's killed, which is after its own timeout.
	Timeout time.Duration
}

// The virtual machine reports on a serial line of its own. A line that starts
// with reportMark is from its first process and goes on with one of the words
// below, and what there is to say about it. All others are the output of the
// test binary that was begun last.
const reportMark = "\x01vm "

const (
	reportBoot  = "boot"  // kernel release
	reportBegin = "begin" // package
	reportEnd   = "end"   // how the package's test binary ended
	reportError = "error" // what went wrong
	reportDone  = "done"
)

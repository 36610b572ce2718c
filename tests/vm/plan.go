// SPDX-License-Identifier: Apache-2.0

package main

// guestEnv is in the environment of the virtual machine's first process, where
// the kernel puts what it doesn't know on its command line. It makes this
// program act as that process.
const guestEnv = "SOCKMETA_VM_GUEST"

// cgroup1Env, if it's there too, makes it a machine with cgroups of version 1
// alone.
const cgroup1Env = "SOCKMETA_VM_CGROUP1"

// kmodEnv, in the environment of tests, is the file of the kernel module, which is
// loaded as they begin.
const kmodEnv = "SOCKMETA_KMOD"

// The virtual machine has two CPUs for tests to meet themselves on another one,
// and numbers of CPUs that leave gaps: number 1 is taken offline, 3 is not there.
// What counts the CPUs to find their numbers fails.
const (
	presentCPUs  = 3
	possibleCPUs = 4
	offlineCPU   = 1
)

// planFile is where the virtual machine finds its plan.
const planFile = "/plan.json"

// plan is what the virtual machine has to do.
type plan struct {
	// Modules are files of kernel modules, to be loaded in this order.
	Modules []string
	Tests   []testRun
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

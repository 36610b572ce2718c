// SPDX-License-Identifier: Apache-2.0

package main

import "time"

// Results are what a run found.
type Results struct {
	Machine Machine
	// Rounds is how often each side of a usual comparison was timed.
	Rounds int
	// Short: sizes were less than the targets are about.
	Short bool
	When  time.Time
	Took  time.Duration
	Rows  []Row
}

// A Machine is where a run took place.
type Machine struct {
	Kernel, Arch, CPU, Go string
	CPUs                  int
}

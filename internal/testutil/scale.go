// SPDX-License-Identifier: Apache-2.0

package testutil

import "testing"

// shortScale is what counts are divided by in a short run.
const shortScale = 20

// Scale returns how many of n datagrams, rounds or the like a test is to do: all
// of them, or with -short a twentieth, at least one. Emulated machines, on which
// everything takes ten to twenty times as long, run the tests so.
func Scale(n int) int {
	if testing.Short() {
		return max(1, n/shortScale)
	}
	return n
}

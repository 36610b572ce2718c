// SPDX-License-Identifier: Apache-2.0

// Package testutil gives tests the privileged surroundings they need, for as
// long as they run: network namespaces, cgroups, and child processes with fewer
// privileges. Tests that can't have them are skipped with the reason.
package testutil

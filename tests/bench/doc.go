// SPDX-License-Identifier: Apache-2.0

// Bench measures what metadata costs, each case against what an application does
// without it, and prints one table:
//
//	go run ./tests/bench
//
// Both sides of a comparison are timed in turn in one run, so that whatever else
// the machine does falls on both; what counts is the median of the rounds' ratios.
// It exits with 1 if a ratio misses its target, by more than -tolerance, and with
// 2 if something could not be measured. Absolute times are printed and judged by
// nobody. It needs root.
//
// -doc and -svg write the results as a page and a picture, -json as data.
package main

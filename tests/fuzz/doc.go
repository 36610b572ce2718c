// SPDX-License-Identifier: Apache-2.0

// Command fuzz runs every fuzz target of the repository, which it finds in the
// sources, each in a process of its own for the same time:
//
//	go run ./tests/fuzz [-time 20s] [-jobs 2] [-run regexp] [-keep n]
//
// It prints a table of targets, and exits 1 when one fails, with what it printed
// and the input, which package testing leaves below testdata/fuzz: commit it with
// the fix. Targets that need privileges are skipped without them; with
// SOCKMETA_REQUIRE_ROOT=1 they fail instead. SIGINT ends it early, with the table
// of what has run so far.
//
// The inputs that are committed below testdata/fuzz are where fuzzing starts from,
// and go test replays them. With -keep, up to that many of a target's are added
// from what fuzzing has found interesting so far and left in the build cache: up
// to 2048 bytes each, of all sizes.
package main

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"regexp"
	"strconv"
	"strings"
)

// A result is what became of a target.
type result struct {
	execs  int
	found  int // inputs that were new
	status string
	// output is all that go printed, where the target failed.
	output string
	// input is the file with the input that failed, relative to the package.
	input string
}

func (r *result) failed() bool { return r.status == statusFailed }

const (
	statusPassed  = "passed"
	statusFailed  = "FAILED"
	statusStopped = "stopped"
	statusSkipped = "skipped"
	statusSlow    = "passed, without time for more than its corpus"
)

var (
	progress   = regexp.MustCompile(`(?m)^fuzz: elapsed: \S+, execs: (\d+) \(\d+/sec\), new interesting: (\d+)`)
	baseline   = regexp.MustCompile(`(?m)^fuzz: elapsed: \S+, gathering baseline coverage: (\d+)/\d+ completed`)
	inputFile  = regexp.MustCompile(`(?m)^\s*Failing input written to (\S+)`)
	seedFailed = regexp.MustCompile(`(?m)^\s*(?:--- FAIL: |failure while testing seed corpus entry: )(Fuzz\w+)/([0-9a-f]{16})\b`)
	skipped    = regexp.MustCompile(`(?m)^\s*--- SKIP: Fuzz.*\n\s+\S+\.go:\d+: (.*)$`)
	atTheEnd   = regexp.MustCompile(`(?m)^--- FAIL: Fuzz\w+ \(\S+\)\n\s+context deadline exceeded\n`)
)

// parseOutput reads what go test -v printed of one target. failed says how go
// ended, stopped that it was told to.
func parseOutput(output string, failed, stopped bool) result {
	var r result
	var slow bool
	if all := progress.FindAllStringSubmatch(output, -1); all != nil {
		last := all[len(all)-1]
		r.execs, _ = strconv.Atoi(last[1])
		r.found, _ = strconv.Atoi(last[2])
	}
	if m := inputFile.FindStringSubmatch(output); m != nil {
		r.input = m[1]
	} else if m := seedFailed.FindStringSubmatch(output); m != nil {
		r.input = "testdata/fuzz/" + m[1] + "/" + m[2]
	}
	if all := baseline.FindAllStringSubmatch(output, -1); all != nil && r.execs == 0 {
		r.execs, _ = strconv.Atoi(all[len(all)-1][1])
		slow = r.execs > 0
	}
	skip := skipped.FindStringSubmatch(output)
	switch {
	case failed && r.input == "" && stopped:
		r.status = statusStopped
	case failed && r.input == "" && r.execs > 0 && endedLate(output):
		r.status = statusPassed
	case failed:
		r.status, r.output = statusFailed, output
	case skip != nil:
		r.status = statusSkipped + ": " + skip[1]
	case slow:
		r.status = statusSlow
	case r.execs == 0:
		// A target that was not run has found nothing.
		r.status, r.output = statusFailed, output
	default:
		r.status = statusPassed
	}
	return r
}

// endedLate tells the failure that is none: where the time is over while a worker
// starts or is busy, package testing reports its own deadline
// (https://go.dev/issue/75804).
func endedLate(output string) bool {
	return atTheEnd.MatchString(output) && strings.Count(output, "--- FAIL") == 1
}

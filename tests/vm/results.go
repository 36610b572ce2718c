// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// outcome is how a test went.
type outcome string

const (
	passed  outcome = "pass"
	failed  outcome = "FAIL"
	skipped outcome = "skip"
)

// result is how a test went on a kernel.
type result struct {
	Package string
	// Test is empty for what concerns the package as a whole.
	Test    string
	Outcome outcome
	Seconds float64
	// Reason says why a test failed or was skipped.
	Reason string `json:",omitempty"`
}

// collect adds the results of test binaries of which some may not have been run.
func (r *run) collect(ctx context.Context, tests []testBinary, sections []*section) error {
	for i, b := range tests {
		if i >= len(sections) {
			r.Results = append(r.Results, result{Package: b.pkg, Outcome: failed, Reason: "not run"})
			continue
		}
		// What was run counts, also when the user has had enough.
		results, err := sectionResults(context.WithoutCancel(ctx), sections[i])
		if err != nil {
			return err
		}
		r.Results = append(r.Results, results...)
	}
	if len(r.Results) == 0 {
		return errors.New("no test was run")
	}
	return nil
}

// testEvent is what test2json makes of a test binary's output.
type testEvent struct {
	Action, Test, Output string
	Elapsed              float64
}

// sectionResults returns the results of a package's tests in the order in which
// they started.
func sectionResults(ctx context.Context, s *section) ([]result, error) {
	// Without -t it doesn't say how long tests took.
	out, err := commandInput(ctx, s.output.String(), "go", "tool", "test2json", "-t", "-p", s.pkg)
	if err != nil {
		return nil, err
	}
	events, err := decodeEvents(out)
	if err != nil {
		return nil, err
	}
	return collect(s.pkg, s.ended, events), nil
}

func decodeEvents(data []byte) ([]testEvent, error) {
	var events []testEvent
	for dec := json.NewDecoder(bytes.NewReader(data)); ; {
		var e testEvent
		if err := dec.Decode(&e); errors.Is(err, io.EOF) {
			return events, nil
		} else if err != nil {
			return nil, fmt.Errorf("test2json: %w", err)
		}
		events = append(events, e)
	}
}

// collect turns the events of a package's test binary, which ended as said, into
// results.
func collect(pkg, ended string, events []testEvent) []result {
	var order []string
	results := make(map[string]*result)
	output := make(map[string]*strings.Builder)
	get := func(test string) *result {
		r := results[test]
		if r == nil {
			r = &result{Package: pkg, Test: test}
			results[test], output[test] = r, new(strings.Builder)
			if test != "" {
				order = append(order, test)
			}
		}
		return r
	}
	whole := get("")
	for _, e := range events {
		r := get(e.Test)
		switch e.Action {
		case "output":
			if !framing.MatchString(e.Output) {
				output[e.Test].WriteString(e.Output)
			}
		case "pass", "skip", "fail":
			r.Outcome = map[string]outcome{"pass": passed, "skip": skipped, "fail": failed}[e.Action]
			r.Seconds = e.Elapsed
		}
	}

	var all []result
	var blamed bool
	for _, test := range order {
		r := results[test]
		if r.Outcome == "" {
			r.Outcome = failed
			output[test].WriteString("did not end\n")
		}
		if r.Outcome != passed {
			r.Reason = reason(output[test].String())
		}
		blamed = blamed || r.Outcome == failed
		all = append(all, *r)
	}
	if ended == "" {
		ended = "did not end"
	}
	// What goes wrong outside of tests, or takes the whole binary down.
	if ended != exitedOK && !(blamed && ended == "exit status 1") {
		whole.Outcome = failed
		whole.Reason = strings.TrimSpace(tail(reason(output[""].String()), 40) + "\n" + ended)
		all = append(all, *whole)
	}
	return all
}

// framing is what the testing package says about how tests proceed.
var framing = regexp.MustCompile(`^\s*(=== (RUN|PAUSE|CONT|NAME)|--- (PASS|FAIL|SKIP):|(PASS|FAIL)\n$)`)

// reason returns what a test has printed, closer together.
func reason(output string) string {
	var b strings.Builder
	for line := range strings.Lines(output) {
		if line != "\n" {
			b.WriteString(strings.TrimPrefix(line, "    "))
		}
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// tail returns the last n lines.
func tail(s string, n int) string {
	lines := strings.Split(s, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// run is how the tests went on a kernel.
type run struct {
	Kernel  string
	Release string
	// Conditions are what justifiedSkips may go by besides the kernel.
	Conditions []string `json:",omitempty"`
	// BootSeconds is until the first process, Seconds all of it, CPUSeconds
	// what that took of the host's processors.
	BootSeconds, Seconds, CPUSeconds float64
	Results                          []result
	// Problems are the kernel's and those with running it.
	Problems []string `json:",omitempty"`
}

type testName struct{ pkg, test string }

// printTable prints how each test went on each kernel, and below that what
// there's to say about those that didn't pass. Subtests have a row where they
// were skipped, as the test they're part of has passed all the same.
func printTable(w io.Writer, runs []*run) error {
	var names []testName
	results := make(map[testName]map[string]result)
	for _, r := range runs {
		for _, res := range r.Results {
			n := testName{res.Package, res.Test}
			if results[n] == nil {
				if strings.Contains(n.test, "/") && res.Outcome != skipped {
					continue
				}
				names = insertName(names, n)
				results[n] = make(map[string]result)
			}
			results[n][r.Kernel] = res
		}
	}

	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(tw, "test")
	for _, r := range runs {
		fmt.Fprint(tw, "\t", r.Kernel)
	}
	fmt.Fprintln(tw)
	for _, n := range names {
		fmt.Fprint(tw, shortName(n.pkg), " ", orWhole(n.test))
		for _, r := range runs {
			cell := "-"
			if res, ok := results[n][r.Kernel]; ok {
				cell = string(res.Outcome)
				if r.unjustified(res) {
					cell = "SKIP"
				}
			}
			fmt.Fprint(tw, "\t", cell)
		}
		fmt.Fprintln(tw)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, r := range runs {
		printNotes(w, r)
	}
	for _, r := range runs {
		printSummary(w, r)
	}
	return nil
}

// insertName adds a name behind those of the same package.
func insertName(names []testName, n testName) []testName {
	for i := len(names) - 1; i >= 0; i-- {
		if names[i].pkg == n.pkg {
			names = append(names, testName{})
			copy(names[i+2:], names[i+1:])
			names[i+1] = n
			return names
		}
	}
	return append(names, n)
}

func printNotes(w io.Writer, r *run) {
	for _, res := range r.Results {
		// A test that failed in a subtest may have nothing to say.
		if res.Outcome == passed || res.Reason == "" {
			continue
		}
		fmt.Fprintf(w, "\n%s %s: %s %s", r.Kernel, res.Outcome, shortName(res.Package), orWhole(res.Test))
		if i := r.justification(res); i >= 0 {
			fmt.Fprintf(w, ": %s", justifiedSkips[i].why)
		}
		fmt.Fprintf(w, "\n%s\n", indent(head(res.Reason, noteLines)))
	}
	for _, p := range r.Problems {
		fmt.Fprintf(w, "\n%s:\n%s\n", r.Kernel, indent(p))
	}
}

func printSummary(w io.Writer, r *run) {
	count := make(map[outcome]int)
	for _, res := range r.Results {
		if !strings.Contains(res.Test, "/") {
			count[res.Outcome]++
		}
	}
	fmt.Fprintf(w, "\n%s (%s): %d passed, %d failed, %d skipped, %d problems; booted in %.0f s, took %.0f s, %.0f s of CPU\n",
		r.Kernel, r.Release, count[passed], count[failed], count[skipped], len(r.Problems), r.BootSeconds, r.Seconds, r.CPUSeconds)
}

// noteLines is how many lines are printed of what a test has to say. In JSON
// there is all of it.
const noteLines = 12

// head returns the first n lines.
func head(s string, n int) string {
	lines := strings.Split(s, "\n")
	if len(lines) <= n {
		return s
	}
	return strings.Join(lines[:n], "\n") + fmt.Sprintf("\n... and %d lines", len(lines)-n)
}

func orWhole(test string) string {
	if test == "" {
		return "(all of it)"
	}
	return test
}

func indent(s string) string {
	return "    " + strings.ReplaceAll(s, "\n", "\n    ")
}

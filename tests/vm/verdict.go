// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"regexp"
	"slices"
)

var seriesOf = regexp.MustCompile(`^[0-9]+\.[0-9]+`)

// conditions returns what justifiedSkips may go by.
func (r *run) conditions() []string {
	c := append([]string{r.Kernel}, r.Conditions...)
	if r.Kernel == hostSeries {
		c = append(c, seriesOf.FindString(r.Release))
	}
	return c
}

// justification returns the index in justifiedSkips of why a result is a skip, or
// -1 if it is none or there is no reason.
func (r *run) justification(res result) int {
	if res.Outcome != skipped {
		return -1
	}
	return justification(r.conditions(), res.Package, res.Test)
}

func (r *run) unjustified(res result) bool {
	return res.Outcome == skipped && r.justification(res) < 0
}

// bad returns the results that make this command fail.
func (r *run) bad() []result {
	var bad []result
	for _, res := range r.Results {
		if res.Outcome == failed || r.unjustified(res) {
			bad = append(bad, res)
		}
	}
	return bad
}

// neverRun returns the tests, and parts of tests, that no kernel has run.
func neverRun(runs []*run) []string {
	ran := make(map[testName]bool)
	var names []testName
	for _, r := range runs {
		for _, res := range r.Results {
			n := testName{res.Package, res.Test}
			if _, seen := ran[n]; !seen {
				names = append(names, n)
			}
			ran[n] = ran[n] || res.Outcome != skipped
		}
	}
	var never []string
	for _, n := range names {
		if !ran[n] {
			never = append(never, fmt.Sprintf("%s %s: skipped everywhere", shortName(n.pkg), n.test))
		}
	}
	return never
}

// staleSkips returns the entries of justifiedSkips that are about one of the
// kernels, of which all tests were run, and justify nothing.
func staleSkips(runs []*run) []string {
	about := make([]bool, len(justifiedSkips))
	used := make([]bool, len(justifiedSkips))
	for _, r := range runs {
		conditions := r.conditions()
		for i, s := range justifiedSkips {
			about[i] = about[i] || slices.ContainsFunc(conditions, s.kernel.MatchString)
		}
		for _, res := range r.Results {
			if i := r.justification(res); i >= 0 {
				used[i] = true
			}
		}
	}
	var stale []string
	for i, s := range justifiedSkips {
		if about[i] && !used[i] {
			stale = append(stale, fmt.Sprintf("nothing is skipped on %v like %v: %s", s.kernel, s.test, s.why))
		}
	}
	return stale
}

// flaws returns what is wrong with a matrix of all tests on all the default
// kernels as a whole.
func flaws(runs []*run) []string {
	return append(neverRun(runs), staleSkips(runs)...)
}

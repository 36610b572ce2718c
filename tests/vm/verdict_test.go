// SPDX-License-Identifier: Apache-2.0

package main

import (
	"regexp"
	"slices"
	"testing"
)

// setSkips replaces justifiedSkips until the test ends.
func setSkips(t *testing.T, entries ...[3]string) {
	t.Helper()
	was := justifiedSkips
	t.Cleanup(func() { justifiedSkips = was })
	justifiedSkips = nil
	for _, e := range entries {
		justifiedSkips = append(justifiedSkips, struct {
			kernel, test *regexp.Regexp
			why          string
		}{regexp.MustCompile(e[0]), regexp.MustCompile(e[1]), e[2]})
	}
}

const testsPkg = "github.com/sockmeta/sockmeta-go/tests"

func skip(test string) result { return result{Package: testsPkg, Test: test, Outcome: skipped} }
func pass(test string) result { return result{Package: testsPkg, Test: test, Outcome: passed} }

func TestJustification(t *testing.T) {
	setSkips(t, [3]string{`^6\.1$`, `^tests TestA`, "old"}, [3]string{`^` + noFQ + `$`, `^tests TestFQ$`, "no fq"})
	for _, tt := range []struct {
		run  run
		res  result
		want int
	}{
		{run{Kernel: "6.1"}, skip("TestAreas/raw"), 0},
		{run{Kernel: "6.1"}, skip("TestB"), -1},
		{run{Kernel: "6.12"}, skip("TestAreas"), -1},
		{run{Kernel: "6.1"}, pass("TestAreas"), -1},
		{run{Kernel: "6.1+lockdown"}, skip("TestAreas"), -1},
		{run{Kernel: "host", Release: "6.1.0-50-amd64"}, skip("TestAreas"), 0},
		{run{Kernel: "host", Release: "6.12.1"}, skip("TestAreas"), -1},
		{run{Kernel: "host", Release: "6.12.1"}, skip("TestFQ"), -1},
		{run{Kernel: "host", Release: "6.12.1", Conditions: []string{noFQ}}, skip("TestFQ"), 1},
	} {
		if got := tt.run.justification(tt.res); got != tt.want {
			t.Errorf("%+v on %+v: %d, want %d", tt.res, tt.run, got, tt.want)
		}
		if bad := len(tt.run.bad()) != 0; bad {
			t.Errorf("%+v is bad without results", tt.run)
		}
		tt.run.Results = []result{tt.res}
		if bad := len(tt.run.bad()) != 0; bad != (tt.res.Outcome == skipped && tt.want < 0) {
			t.Errorf("%+v on %+v: bad is %v", tt.res, tt.run, bad)
		}
	}
}

func TestFlaws(t *testing.T) {
	setSkips(t,
		[3]string{`^6\.1$`, `^tests TestA$`, "needed"},
		[3]string{`^6\.`, `^tests TestB$`, "not needed"},
		[3]string{`^5\.`, `^tests TestB$`, "not asked for"},
		[3]string{`^6\.12$`, `^tests TestC`, "needed"})
	runs := []*run{
		{Kernel: "6.1", Results: []result{skip("TestA"), pass("TestB"), pass("TestC"), skip("TestC/x"), skip("TestD")}},
		{Kernel: "6.12", Results: []result{pass("TestA"), pass("TestB"), pass("TestC"), skip("TestC/x"), pass("TestD")}},
	}
	want := []string{
		"tests TestC/x: skipped everywhere",
		`nothing is skipped on ^6\. like ^tests TestB$: not needed`,
	}
	if got := flaws(runs); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

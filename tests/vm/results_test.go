// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os/exec"
	"slices"
	"testing"
)

// TestSectionResults takes what test binaries print.
func TestSectionResults(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip(err)
	}
	const (
		name = "\x16=== NAME  \n"
		pass = "\x16=== RUN   TestA\n\x16--- PASS: TestA (0.25s)\n" + name
		skip = "\x16=== RUN   TestB\n    b_test.go:7: no\n        more\n\x16--- SKIP: TestB (0.00s)\n" + name
		// Output without a line's end, and a subtest that fails.
		fail = "\x16=== RUN   TestC\nloud\x16=== RUN   TestC/sub\n    c_test.go:9: bad\n" +
			"\x16--- FAIL: TestC/sub (0.10s)\n\x16=== NAME  TestC\n\x16--- FAIL: TestC (0.50s)\n" + name
		crash   = "\x16=== RUN   TestD\n\x16--- FAIL: TestD (0.00s)\npanic: oh\n\ngoroutine 1 [running]:\n"
		timeout = "\x16=== RUN   TestE\npanic: test timed out after 1s\n"
		ok      = "\x16PASS\n"
		bad     = "\x16FAIL\n"
	)
	for _, tt := range []struct {
		name, output, ended string
		want                []result
	}{
		{"passing", pass + ok, exitedOK, []result{
			{Test: "TestA", Outcome: passed, Seconds: 0.25},
		}},
		{"skipping", pass + skip + ok, exitedOK, []result{
			{Test: "TestA", Outcome: passed, Seconds: 0.25},
			{Test: "TestB", Outcome: skipped, Reason: "b_test.go:7: no\n    more"},
		}},
		{"failing", fail + bad, "exit status 1", []result{
			{Test: "TestC", Outcome: failed, Seconds: 0.5, Reason: "loud"},
			{Test: "TestC/sub", Outcome: failed, Seconds: 0.1, Reason: "c_test.go:9: bad"},
		}},
		{"crashing", crash, "exit status 2", []result{
			{Test: "TestD", Outcome: failed, Reason: "panic: oh\ngoroutine 1 [running]:\ndid not end"},
			{Outcome: failed, Reason: "exit status 2"},
		}},
		{"timing out", timeout, "exit status 2", []result{
			{Test: "TestE", Outcome: failed, Reason: "panic: test timed out after 1s\ndid not end"},
			{Outcome: failed, Reason: "exit status 2"},
		}},
		{"silent", "", "fork/exec: no such file", []result{
			{Outcome: failed, Reason: "fork/exec: no such file"},
		}},
		{"cut off", "\x16=== RUN   TestA\n", "", []result{
			{Test: "TestA", Outcome: failed, Reason: "did not end"},
			{Outcome: failed, Reason: "did not end"},
		}},
		{"failing after all tests", pass + ok + "leak\n", "exit status 1", []result{
			{Test: "TestA", Outcome: passed, Seconds: 0.25},
			{Outcome: failed, Reason: "leak\nexit status 1"},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &section{pkg: "p", ended: tt.ended}
			s.output.WriteString(tt.output)
			got, err := sectionResults(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			for i := range tt.want {
				tt.want[i].Package = "p"
			}
			for i := range got {
				// A package's time is how long test2json took.
				if got[i].Test == "" {
					got[i].Seconds = 0
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got\n%+v\nwant\n%+v", got, tt.want)
			}
		})
	}
}

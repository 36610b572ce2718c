// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
)

func TestPrintTable(t *testing.T) {
	a, b := &run{Kernel: "6.1"}, &run{Kernel: "7.3", Problems: []string{"BUG: x"}}
	a.Results = []result{
		{Package: "p", Test: "TestOne", Outcome: failed},
		{Package: "p", Test: "TestOne/sub", Outcome: failed, Reason: "first\nsecond"},
		{Package: "q", Outcome: failed, Reason: "exit status 2"},
	}
	b.Results = []result{
		{Package: "p", Test: "TestOne", Outcome: passed},
		{Package: "p", Test: "TestOne/sub", Outcome: passed},
		{Package: "p", Test: "TestOne/fine", Outcome: passed},
		{Package: "p", Test: "TestOne/odd", Outcome: skipped},
		{Package: "p", Test: "TestTwo", Outcome: skipped, Reason: "why"},
		{Package: "q", Test: "TestThree", Outcome: passed},
	}
	var out strings.Builder
	if err := printTable(&out, []*run{a, b}); err != nil {
		t.Fatal(err)
	}
	want := `test           6.1   7.3
p TestOne      FAIL  pass
p TestOne/odd  -     SKIP
p TestTwo      -     SKIP
q (all of it)  FAIL  -
q TestThree    -     pass

6.1 FAIL: p TestOne/sub
    first
    second

6.1 FAIL: q (all of it)
    exit status 2

7.3 skip: p TestTwo
    why

7.3:
    BUG: x
`
	if table, _, _ := strings.Cut(out.String(), "\n6.1 ("); table != want {
		t.Errorf("got\n%s\nwant\n%s", table, want)
	}
	if n := len(a.bad()); n != 3 {
		t.Errorf("%d bad results on the first, want 3", n)
	}
	if n := len(b.bad()); n != 2 {
		t.Errorf("%d bad results on the second, want 2", n)
	}
}

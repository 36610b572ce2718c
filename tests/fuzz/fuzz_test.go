// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestParseOutput(t *testing.T) {
	const passed = "=== RUN   FuzzTLV\nfuzz: elapsed: 0s, gathering baseline coverage: 0/41 completed\n" +
		"fuzz: elapsed: 0s, gathering baseline coverage: 41/41 completed, now fuzzing with 1 workers\n" +
		"fuzz: elapsed: 3s, execs: 13706 (4828/sec), new interesting: 12 (total: 53)\n" +
		"fuzz: elapsed: 6s, execs: 20001 (0/sec), new interesting: 14 (total: 55)\n" +
		"--- PASS: FuzzTLV (6.04s)\nPASS\nok  \texample.org/a\t6.1s\n"
	const failed = "=== RUN   FuzzTLV\nfuzz: elapsed: 3s, execs: 13706 (4828/sec), new interesting: 12 (total: 24)\n" +
		"--- FAIL: FuzzTLV (2.85s)\n    --- FAIL: FuzzTLV (0.00s)\n        tlv_test.go:120: wrong\n    \n" +
		"    Failing input written to testdata/fuzz/FuzzTLV/db6a285991ee6dcf\n    To re-run:\n" +
		"    go test -run=FuzzTLV/db6a285991ee6dcf\nFAIL\nexit status 1\nFAIL\texample.org/a\t2.881s\n"
	const seed = "=== RUN   FuzzTLV\nfuzz: elapsed: 0s, gathering baseline coverage: 0/1 completed\n" +
		"failure while testing seed corpus entry: FuzzTLV/db6a285991ee6dcf\n" +
		"fuzz: elapsed: 0s, gathering baseline coverage: 0/1 completed\n--- FAIL: FuzzTLV (0.02s)\nFAIL\n"
	const late = "fuzz: elapsed: 20s, execs: 500 (20/sec), new interesting: 1 (total: 5)\n" +
		"--- FAIL: FuzzTLV (20.10s)\n    context deadline exceeded\nFAIL\nexit status 1\n"
	for _, tt := range []struct {
		name            string
		output          string
		failed, stopped bool
		want            result
	}{
		{"passed", passed, false, false, result{execs: 20001, found: 14, status: statusPassed}},
		{"failed", failed, true, false, result{execs: 13706, found: 12, status: statusFailed, output: failed, input: "testdata/fuzz/FuzzTLV/db6a285991ee6dcf"}},
		{"failed as it was stopped", failed, true, true, result{execs: 13706, found: 12, status: statusFailed, output: failed, input: "testdata/fuzz/FuzzTLV/db6a285991ee6dcf"}},
		{"committed input fails", seed, true, false, result{status: statusFailed, output: seed, input: "testdata/fuzz/FuzzTLV/db6a285991ee6dcf"}},
		{"stopped", passed, true, true, result{execs: 20001, found: 14, status: statusStopped}},
		{"worker busy at the end", late, true, false, result{execs: 500, found: 1, status: statusPassed}},
		{"never began", strings.Replace(late, "execs: 500", "execs: 0", 1), true, false, result{found: 1, status: statusFailed, output: strings.Replace(late, "execs: 500", "execs: 0", 1)}},
		{"does not build", "FAIL\texample.org/a [build failed]\n", true, false, result{status: statusFailed, output: "FAIL\texample.org/a [build failed]\n"}},
		{"still at its corpus", "fuzz: elapsed: 9s, gathering baseline coverage: 12/347 completed\n--- PASS: FuzzTLV (9s)\nPASS\n", false, false, result{execs: 12, status: statusSlow}},
		{"skipped", "=== RUN   FuzzTLV\n    fuzz_test.go:20: needs CAP_BPF; run as root\n--- SKIP: FuzzTLV (0.00s)\n    fuzz_test.go:20: needs CAP_BPF; run as root\nPASS\n", false, false, result{status: "skipped: needs CAP_BPF; run as root"}},
		{"no such target", "testing: warning: no fuzz tests to fuzz\nPASS\n", false, false, result{status: statusFailed, output: "testing: warning: no fuzz tests to fuzz\nPASS\n"}},
	} {
		if got := parseOutput(tt.output, tt.failed, tt.stopped); got != tt.want {
			t.Errorf("%s:\n got %+v\nwant %+v", tt.name, got, tt.want)
		}
	}
}

func TestFindTargets(t *testing.T) {
	root := t.TempDir()
	other := "windows"
	if runtime.GOOS == other {
		other = "linux"
	}
	for name, text := range map[string]string{
		"go.mod":                    "module a",
		"a_test.go":                 "package a\nimport \"testing\"\nfunc FuzzB(f *testing.F) {}\nfunc FuzzA(f *testing.F) {}\nfunc Fuzz(s string) {}\nfunc helper(f *testing.F) {}",
		"a.go":                      "package a\nfunc FuzzNot() {}",
		"b/b_test.go":               "package b\nimport \"testing\"\nfunc FuzzC(f *testing.F) {}",
		"b/b_" + other + "_test.go": "package b\nimport \"testing\"\nfunc FuzzOther(f *testing.F) {}",
		"b/testdata/fuzz/FuzzC/x":   "go test fuzz v1",
		"b/testdata/t_test.go":      "package b\nimport \"testing\"\nfunc FuzzData(f *testing.F) {}",
		"cmd/go.mod":                "module a/cmd",
		"cmd/c/c_test.go":           "package c\nimport \"testing\"\ntype x int\nfunc (x) FuzzMethod(f *testing.F) {}\nfunc FuzzD(f *testing.F) {}",
	} {
		file := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := filepath.Join(root, "cmd")
	want := []target{{root, ".", ".", "FuzzA"}, {root, ".", ".", "FuzzB"}, {root, "b", "b", "FuzzC"}, {cmd, "c", "cmd/c", "FuzzD"}}
	if got, err := findTargets(root); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v\nwant %v", got, err, want)
	}
	if _, err := findTargets(t.TempDir()); err == nil {
		t.Error("an empty tree has targets")
	}
}

func TestInputs(t *testing.T) {
	dir := t.TempDir()
	if got, err := inputs(filepath.Join(dir, "none")); got != nil || err != nil {
		t.Errorf("none: %v, %v", got, err)
	}
	old := time.Now().Add(-time.Hour)
	for name, in := range map[string]struct {
		text string
		time time.Time
	}{
		"old":    {"go test fuzz v1\nstring(\"a\")\n", old},
		"long":   {"go test fuzz v1\n[]byte(\"" + strings.Repeat("b", maxInput) + "\")\n", old},
		"middle": {"go test fuzz v1\n[]uint8(\"bb\")\n", old},
		"new":    {"go test fuzz v1\n[]byte(\"b\")\n", old.Add(time.Minute)},
	} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(in.text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, in.time, in.time); err != nil {
			t.Fatal(err)
		}
	}
	got, err := inputs(dir)
	if err != nil || len(got) != 2 || filepath.Base(got[0].file) != "new" || filepath.Base(got[1].file) != "middle" {
		t.Errorf("%v, %v, want new and middle", got, err)
	}
}

func TestSpread(t *testing.T) {
	all := make([]input, 10)
	for i := range all {
		all[i].size = int64(i)
	}
	for n, want := range map[int]int{-1: 0, 0: 0, 1: 1, 4: 4, 10: 10, 11: 10} {
		got := spread(all, n)
		if len(got) != want {
			t.Errorf("%d of 10: %v", n, got)
		}
		for i := 1; i < len(got); i++ {
			if got[i].size <= got[i-1].size {
				t.Errorf("%d of 10: %v", n, got)
			}
		}
	}
}

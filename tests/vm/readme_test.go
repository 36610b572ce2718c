// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// allFeatures has all tests of the features pass.
func allFeatures(kernel, release string) *run {
	r := &run{Kernel: kernel, Release: release}
	seen := make(map[string]bool)
	for _, f := range features {
		for _, test := range f.tests {
			pkg, name, _ := strings.Cut(test, " ")
			if seen[test] {
				continue
			}
			seen[test] = true
			r.Results = append(r.Results, result{Package: "github.com/sockmeta/sockmeta-go/" + pkg, Test: name, Outcome: passed})
		}
	}
	return r
}

// set gives a test another outcome, or a part of a test one.
func (r *run) set(test string, o outcome) {
	for i := range r.Results {
		if r.Results[i].Test == test {
			r.Results[i].Outcome = o
			return
		}
	}
	r.Results = append(r.Results, result{Package: testsPkg, Test: test, Outcome: o})
}

func TestReadme(t *testing.T) {
	setSkips(t, [3]string{`^6\.1$`, `^tests TestLocal`, "it is old"}, [3]string{noTrampolines, `^tests TestTracing`, "refused"})
	runs := func() []*run {
		old, host := allFeatures("6.1", "6.1.0-50"), allFeatures("host", "6.18.1")
		old.set("TestLocalUDP/IPv6", skipped)
		host.Conditions = []string{noTrampolines}
		host.set("TestTracingMessages", skipped)
		return []*run{old, allFeatures("7.3", "7.3.1"), host, {Kernel: "7.3+lockdown"}, allFeatures("7.3+kmod", "7.3.1")}
	}
	file := filepath.Join(t.TempDir(), "README.md")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("before\n" + tableBegin + tableEnd + "after\n")
	if err := updateReadme(file, runs(), false); err == nil {
		t.Error("no table is the same as one")
	}
	if err := updateReadme(file, runs(), true); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"before\n" + tableBegin + "| Linux | 6.1 | 7.3 | 6.18 |\n|---|---|---|---|\n",
		"| metadata between local sockets | no: it is old | yes | yes |\n",
		"| `tracing`: raw control messages | yes | yes | – |\n",
		"for any program | – | yes | – |\n" + tableEnd + "after\n",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("lacks\n%s\nin\n%s", want, text)
		}
	}

	for name, tt := range map[string]struct {
		change func([]*run) []*run
		text   func(string) string
		want   string // in the error; none if it's empty
	}{
		"the same":        {},
		"another release": {change: func(r []*run) []*run { r[1].Release = "7.3.9"; return r }},
		"another host":    {change: func(r []*run) []*run { r[2].Release = "6.17.1"; return r }},
		"host can trace": {change: func(r []*run) []*run {
			r[2] = allFeatures("host", "6.18.1")
			return r
		}},
		"host is 7.3": {change: func(r []*run) []*run { r[2] = allFeatures("host", "7.3.1"); return r }},
		"works now": {
			change: func(r []*run) []*run { r[0] = allFeatures("6.1", "6.1.0-50"); return r },
			want:   `metadata between local sockets on 6.1 is "no: it is old", of this run "yes"`,
		},
		"failed": {
			change: func(r []*run) []*run { r[1].set("TestSend", failed); return r },
			want:   "tests TestSend: FAIL",
		},
		"unjustified": {
			change: func(r []*run) []*run { r[1].set("TestSend", skipped); return r },
			want:   "tests TestSend: skip",
		},
		"failed with the module": {
			change: func(r []*run) []*run { r[4].set("TestNativeMmsg", failed); return r },
			want:   "tests TestNativeMmsg: FAIL",
		},
		"test is gone": {
			change: func(r []*run) []*run { r[1].Results = r[1].Results[1:]; return r },
			want:   "was not run",
		},
		"text changed": {
			text: func(s string) string { return strings.Replace(s, "yes | yes | yes", "yes | no | yes", 1) },
			want: "on 7.3 is \"no\"",
		},
		"row is gone": {
			text: func(s string) string {
				line := s[strings.Index(s, "| metadata between"):]
				return strings.Replace(s, line[:strings.Index(line, "\n")+1], "", 1)
			},
			want: "rows are",
		},
		"a kernel too many": {
			text: func(s string) string { return strings.ReplaceAll(s, "7.3", "7.2") },
			want: "of which one at most is the host's",
		},
		"no markers": {text: func(string) string { return "" }, want: "no support table"},
	} {
		t.Run(name, func(t *testing.T) {
			r := runs()
			if tt.change != nil {
				r = tt.change(r)
			}
			write(string(text))
			if tt.text != nil {
				write(tt.text(string(text)))
			}
			err := updateReadme(file, r, false)
			if (err != nil) != (tt.want != "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

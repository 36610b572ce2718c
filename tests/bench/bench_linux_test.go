// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
)

func TestParse(t *testing.T) {
	opts, err := parse([]string{"-short", "-tolerance", "0.1", "-run", "udp", "-json", "-"})
	if err != nil || !opts.short || opts.rounds != shortRounds || opts.tolerance != 0.1 || opts.json != "-" ||
		opts.run.String() != "udp" {
		t.Errorf("%+v, %v", opts, err)
	}
	if opts, err := parse(nil); err != nil || opts.rounds != defaultRounds {
		t.Errorf("without flags: %+v, %v", opts, err)
	}
}

func TestExitCode(t *testing.T) {
	for _, test := range []struct {
		err  error
		want int
	}{{nil, 0}, {fmt.Errorf("2 of 3 %w", errMissed), 1}, {errors.New("other"), 2}} {
		if got := exitCode(test.err); got != test.want {
			t.Errorf("%v: %d, want %d", test.err, got, test.want)
		}
	}
}

func TestPictureOf(t *testing.T) {
	for _, test := range []struct{ svg, doc, want string }{
		{"", "docs/p.md", ""}, {"docs/p.svg", "docs/p.md", "p.svg"}, {"p.svg", "docs/p.md", "../p.svg"},
	} {
		if got := pictureOf(options{svg: test.svg, doc: test.doc}); got != test.want {
			t.Errorf("%+v: %q", test, got)
		}
	}
}

// TestCases runs every case, small, and looks at what comes out, not how fast it is.
func TestCases(t *testing.T) {
	testutil.Leaks(t)
	testutil.RequireRoot(t)
	testutil.EnterCgroup(t)
	m, err := newMeter(t.Context(), testutil.Scale(10), 500)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.close(); err != nil {
			t.Error(err)
		}
	})
	seen, measured := make(map[string]bool), make(map[string]bool)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if _, err := exec.LookPath("go"); err != nil && c.name == "tcp-accept" {
				t.Skip(err)
			}
			rows, err := measure(m, []benchCase{c}, io.Discard)
			if errors.Is(err, bpf.ErrNotSupported) || errors.Is(err, unix.ENOPROTOOPT) {
				testutil.Skip(t, err.Error())
			}
			if err != nil {
				t.Fatal(err)
			}
			measured[c.name] = true
			if len(rows) == 0 {
				t.Error("no rows")
			}
			for _, r := range rows {
				if !strings.HasPrefix(r.ID, c.name+"/") || seen[r.ID] {
					t.Errorf("the id %q is another case's or there twice", r.ID)
				}
				seen[r.ID] = true
				checkRow(t, &r)
			}
		})
	}
	for _, n := range notes {
		for _, id := range n.ids {
			if name, _, _ := strings.Cut(id, "/"); measured[name] && !seen[id] && !t.Failed() {
				t.Errorf("a note is about %q, which is no row", id)
			}
		}
	}
}

func checkRow(t *testing.T, r *Row) {
	t.Helper()
	v := r.Value
	for _, x := range []float64{v.Median, v.Q1, v.Q3, r.Nanos, r.AgainstNanos} {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			t.Errorf("%s: %+v", r.ID, r)
		}
	}
	if r.What == "" || v.Rounds == 0 || v.Q1 > v.Median || v.Median > v.Q3 {
		t.Errorf("%s: %+v", r.ID, r)
	}
	if r.Unit == Times && (v.Q1 <= 0 || r.Nanos <= 0 || r.AgainstNanos <= 0 || r.Against == "") {
		t.Errorf("%s: a ratio without its sides: %+v", r.ID, r)
	}
}

func TestCasesMatching(t *testing.T) {
	if got := casesMatching(regexp.MustCompile("^udp-")); len(got) != 4 {
		t.Errorf("%d cases, want udp-read, udp-batch, udp-gro and udp-send", len(got))
	}
	if got := casesMatching(regexp.MustCompile("nothing")); got != nil {
		t.Errorf("%v", got)
	}
}

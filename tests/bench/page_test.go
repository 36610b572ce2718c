// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
)

func TestPage(t *testing.T) {
	r := Results{Machine: Machine{Kernel: "6.18.1", CPU: "a CPU", CPUs: 2}, Rounds: 123, Rows: someRows()}
	text := string(page(r, "performance.svg"))
	for _, want := range []string{"Linux 6.18.1", "2 CPUs (a CPU)", "123 rounds", "(performance.svg)", markdownTable(r.Rows)} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "A short run") {
		t.Error("a full run is called a short one")
	}
	r.Short = true
	text = string(page(r, ""))
	if !strings.Contains(text, "A short run") || strings.Contains(text, "![") {
		t.Errorf("a short run without a picture:\n%s", text)
	}
}

// What is missed is explained, with the run's own numbers, and nothing else is.
func TestBounds(t *testing.T) {
	defer func(saved []note) { notes = saved }(notes)
	notes = []note{
		{[]string{"a/met"}, "never said"},
		{[]string{"a/missed", "b/ceiling"}, "takes {b/far}, not {no/row}"},
		{[]string{"c/ns"}, "beyond"},
	}
	// Wherever the lines are broken.
	got := strings.Join(strings.Fields(bounds(someRows())), " ")
	for _, want := range []string{
		"takes 87.2 ×, not (not measured)", "Metadata, against getsockopt: 2.50 × (≤ 1.400 ×)", "program: 150 ns (≤ 120 ns).** beyond",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "never said") {
		t.Errorf("what was met is explained:\n%s", got)
	}
	if got := bounds(someRows()[:1]); got != "" {
		t.Errorf("all is met: %q", got)
	}
}

func TestWrap(t *testing.T) {
	word := strings.Repeat("×", 59)
	for _, test := range []struct{ text, want string }{
		{"one\n two", "one two\n"},
		{word + " " + word, word + " " + word + "\n"}, // 119
		{word + " " + word + "××", word + "\n" + word + "××\n"},
	} {
		if got := wrap(test.text); got != test.want {
			t.Errorf("%q is wrapped as %q, want %q", test.text, got, test.want)
		}
	}
}

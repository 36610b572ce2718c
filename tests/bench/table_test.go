// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// someRows have every verdict, and what XML and Markdown have to quote.
func someRows() []Row {
	rows := []Row{
		{ID: "a/met", What: "read", Against: "plain", Value: Estimate{0.961, 0.95, 0.97, 10}, Unit: Times,
			Target: atLeast(0.95), Nanos: 1000, AgainstNanos: 961},
		{ID: "a/missed", What: "accept <&> \"1 | 2\"", Against: "net", Value: Estimate{0.8, 0.7, 1.1, 10}, Unit: Times,
			Target: atLeast(0.97), Nanos: 25000, AgainstNanos: 20000},
		{ID: "b/far", What: "record", Against: "lookup", Value: Estimate{87.25, 80, 90, 10}, Unit: Times,
			Target: atLeast(20), Nanos: 9, AgainstNanos: 800},
		{ID: "b/ceiling", What: "Metadata", Against: "getsockopt", Value: Estimate{2.5, 2.4, 2.6, 10}, Unit: Times,
			Target: atMost(1.4), Nanos: 1250, AgainstNanos: 500},
		{ID: "c/ns", What: "program", Value: Estimate{150, 140, 160, 10}, Unit: Nanoseconds,
			Target: atMost(120), Nanos: 150},
		{ID: "c/bytes", What: "socket", Value: Estimate{272, 272, 272, 1}, Unit: Bytes},
	}
	for i := range rows {
		rows[i].Verdict = rows[i].judge(0)
	}
	return rows
}

func TestTable(t *testing.T) {
	var b strings.Builder
	if err := printTable(&b, someRows()); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
	if len(lines) != 1+len(someRows()) {
		t.Fatalf("%d lines:\n%s", len(lines), b.String())
	}
	// Every line has the verdict at the same place.
	column := utf8.RuneCountInString(lines[0][:strings.Index(lines[0], "verdict")])
	for i, r := range someRows() {
		line := []rune(lines[1+i])
		if len(line) < column || !strings.HasPrefix(string(line[column:]), string(r.Verdict)) {
			t.Errorf("no %q at column %d of\n%s", r.Verdict, column, lines[1+i])
		}
	}
	for _, want := range []string{
		"0.961 × (0.950–0.970)", "≥ 0.950 ×", "1000 / 961", "150 ns (140–160)", "≤ 120 ns", "87.2 ×", "272 B",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

func TestMarkdown(t *testing.T) {
	table := markdownTable(someRows())
	lines := strings.Split(strings.TrimRight(table, "\n"), "\n")
	if len(lines) != 2+len(someRows()) {
		t.Fatalf("%d lines:\n%s", len(lines), table)
	}
	for _, line := range lines {
		bars := strings.Count(strings.ReplaceAll(line, `\|`, ""), "|")
		if bars != len(heads)+1 {
			t.Errorf("%d bars, want %d, in %s", bars, len(heads)+1, line)
		}
	}
	for _, want := range []string{"**missed**", "**beyond (informative)**", "| met |", `1 \| 2`} {
		if !strings.Contains(table, want) {
			t.Errorf("no %q in\n%s", want, table)
		}
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0.000", 0.9514: "0.951", 1.4: "1.400", 2.456: "2.46", 12.34: "12.3", 1234.5: "1234", -12.34: "-12.3",
	} {
		if got := number(v); got != want {
			t.Errorf("%v is %q, want %q", v, got, want)
		}
	}
}

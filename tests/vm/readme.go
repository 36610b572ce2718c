// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

const (
	tableBegin = "<!-- support table: go run ./tests/vm -readme README.md -write -->\n"
	tableEnd   = "<!-- support table: end -->\n"
)

// Cells of the support table, besides "no" with a reason.
const (
	supported = "yes"
	// untried is what the host can't show, being restricted.
	untried = "–"
)

// supportTable says what works on which kernel.
type supportTable struct {
	// columns are kernels by their series, rows features.
	columns, rows []string
	cells         map[[2]string]string // by row and column
}

// newSupportTable makes a table of what tests have shown. Which release of a series
// that was is left out, as it changes without changing anything.
func newSupportTable(runs []*run) (*supportTable, error) {
	t := &supportTable{cells: make(map[[2]string]string)}
	var errs []error
	for _, r := range runs {
		column := r.Kernel
		switch {
		case column == hostSeries:
			column = seriesOf.FindString(r.Release)
		case seriesOf.FindString(column) != column:
			continue // a variant
		}
		if len(t.rows) != 0 && t.cells[[2]string{t.rows[0], column}] != "" {
			continue // the host's kernel is one of the others
		}
		t.columns = append(t.columns, column)
		t.rows = t.rows[:0]
		for _, f := range features {
			cell, err := cellOf(runs, r, f.tests, f.variant)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s, %s: %w", f.name, r.Kernel, err))
			}
			t.rows = append(t.rows, f.name)
			t.cells[[2]string{f.name, column}] = cell
		}
	}
	return t, errors.Join(errs...)
}

// cellOf says what some tests have shown in a run, or in that of a variant of its
// machine, which there is not of each.
func cellOf(runs []*run, r *run, tests []string, variant string) (string, error) {
	if variant == "" {
		return r.cell(tests)
	}
	for _, v := range runs {
		if v.Kernel == r.Kernel+"+"+variant {
			return v.cell(tests)
		}
	}
	return untried, nil
}

// cell says what some tests have shown.
func (r *run) cell(tests []string) (string, error) {
	cell := supported
	for _, test := range tests {
		var found bool
		for _, res := range r.Results {
			name := shortName(res.Package) + " " + res.Test
			if name != test && !strings.HasPrefix(name, test+"/") {
				continue
			}
			found = true
			switch i := r.justification(res); {
			case res.Outcome == passed:
			case i < 0:
				return "", fmt.Errorf("%s: %s", name, res.Outcome)
			case justifiedSkips[i].kernel.MatchString(r.Kernel) || len(r.Conditions) == 0:
				cell = "no: " + justifiedSkips[i].why
			case cell == supported:
				cell = untried
			}
		}
		if !found {
			return "", fmt.Errorf("%s was not run", test)
		}
	}
	return cell, nil
}

// String returns the table in Markdown.
func (t *supportTable) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "| Linux | %s |\n", strings.Join(t.columns, " | "))
	fmt.Fprintf(&b, "|---|%s\n", strings.Repeat("---|", len(t.columns)))
	for _, row := range t.rows {
		fmt.Fprintf(&b, "| %s |", row)
		for _, column := range t.columns {
			fmt.Fprintf(&b, " %s |", t.cells[[2]string{row, column}])
		}
		b.WriteString("\n")
	}
	return b.String()
}

// parseSupportTable is the inverse of String.
func parseSupportTable(text string) (*supportTable, error) {
	t := &supportTable{cells: make(map[[2]string]string)}
	n := 0
	for line := range strings.Lines(text) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch n++; {
		case n == 1:
			t.columns = cells[1:]
		case n == 2:
		case len(cells) != len(t.columns)+1:
			return nil, fmt.Errorf("support table: %d cells, want %d: %s", len(cells), len(t.columns)+1, line)
		default:
			t.rows = append(t.rows, cells[0])
			for i, column := range t.columns {
				t.cells[[2]string{cells[0], column}] = cells[i+1]
			}
		}
	}
	if n < 3 {
		return nil, errors.New("no support table")
	}
	return t, nil
}

// differences returns how the table, which is of this run, differs from one that
// was written down. The host's column counts if that has one of its kernel, but for
// what one of the two hosts could not show.
func (t *supportTable) differences(written *supportTable, booted func(column string) bool) []string {
	var diffs []string
	if was, is := strings.Join(written.rows, "; "), strings.Join(t.rows, "; "); was != is {
		diffs = append(diffs, fmt.Sprintf("rows are %s, of this run %s", was, is))
	}
	var others []string
	for _, column := range written.columns {
		if !booted(column) {
			others = append(others, column)
		}
	}
	if len(others) > 1 {
		diffs = append(diffs, fmt.Sprintf("there are columns of %s, of which one at most is the host's", strings.Join(others, ", ")))
	}
	for _, column := range t.columns {
		for _, row := range t.rows {
			is := t.cells[[2]string{row, column}]
			was, ok := written.cells[[2]string{row, column}]
			if is == was || !booted(column) && (!ok || is == untried || was == untried) {
				continue
			}
			diffs = append(diffs, fmt.Sprintf("%s on %s is %q, of this run %q", row, column, was, is))
		}
	}
	return diffs
}

// splitReadme returns the table in a file and what is around it.
func splitReadme(text string) (before, table, after string, err error) {
	before, rest, ok := strings.Cut(text, tableBegin)
	table, after, closed := strings.Cut(rest, tableEnd)
	if !ok || !closed {
		return "", "", "", fmt.Errorf("no support table between %q and %q", tableBegin, tableEnd)
	}
	return before + tableBegin, table, tableEnd + after, nil
}

// updateReadme compares the support table in a file with that of the runs, and if
// write is set replaces it.
func updateReadme(file string, runs []*run, write bool) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, table, after, err := splitReadme(string(data))
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	t, err := newSupportTable(runs)
	if err != nil {
		return err
	}
	if write {
		return os.WriteFile(file, []byte(before+t.String()+after), 0o644)
	}
	written, err := parseSupportTable(table)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	booted := func(column string) bool {
		for _, r := range runs {
			if r.Kernel == column {
				return true
			}
		}
		return false
	}
	if diffs := t.differences(written, booted); len(diffs) != 0 {
		return fmt.Errorf("%s: the support table is not that of this run:\n%s\nwrite it with -write", file, strings.Join(diffs, "\n"))
	}
	return nil
}

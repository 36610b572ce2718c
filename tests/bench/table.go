// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// cells returns what the table shows of a row, by the columns of heads.
func (r *Row) cells() []string {
	return []string{r.What, r.Against, r.value(), r.target(), string(r.Verdict), r.nanos()}
}

var heads = []string{"case", "compared with", "median (quartiles)", "target", "verdict", "ns, one / other"}

func (r *Row) value() string {
	v := r.Value
	return fmt.Sprintf("%s %s (%s–%s)", number(v.Median), r.Unit, number(v.Q1), number(v.Q3))
}

func (r *Row) target() string {
	if r.Target == nil {
		return ""
	}
	sign := "≥"
	if r.Target.Ceiling {
		sign = "≤"
	}
	return fmt.Sprintf("%s %s %s", sign, number(r.Target.Value), r.Unit)
}

func (r *Row) nanos() string {
	switch {
	case r.Nanos == 0:
		return ""
	case r.AgainstNanos == 0:
		return number(r.Nanos)
	}
	return number(r.Nanos) + " / " + number(r.AgainstNanos)
}

// number prints three digits or all before the point.
func number(v float64) string {
	switch abs := max(v, -v); {
	case abs >= 100:
		return fmt.Sprintf("%.0f", v)
	case abs >= 10:
		return fmt.Sprintf("%.1f", v)
	case abs >= 2:
		return fmt.Sprintf("%.2f", v)
	}
	// What is close to 1 is judged by its third digit.
	return fmt.Sprintf("%.3f", v)
}

// printTable writes the rows for a terminal.
func printTable(w io.Writer, rows []Row) error {
	lines := [][]string{heads}
	widths := make([]int, len(heads))
	for i := range rows {
		lines = append(lines, rows[i].cells())
	}
	for _, cells := range lines {
		for i, c := range cells {
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	for _, cells := range lines {
		var line strings.Builder
		for i, c := range cells {
			line.WriteString(c)
			line.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c)+2))
		}
		if _, err := fmt.Fprintln(w, strings.TrimRight(line.String(), " ")); err != nil {
			return err
		}
	}
	return nil
}

// markdownTable returns the rows for the page.
func markdownTable(rows []Row) string {
	var b strings.Builder
	writeCells := func(cells []string) {
		b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
	}
	writeCells(heads)
	b.WriteString(strings.Repeat("|---", len(heads)) + "|\n")
	for i := range rows {
		cells := rows[i].cells()
		for j := range cells {
			cells[j] = strings.ReplaceAll(cells[j], "|", `\|`)
		}
		if rows[i].Verdict == Missed || rows[i].Verdict == Beyond {
			cells[4] = "**" + cells[4] + "**"
		}
		writeCells(cells)
	}
	return b.String()
}

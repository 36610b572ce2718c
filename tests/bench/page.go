// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"
)

// pageHead is the page's text in front of the results.
const pageHead = `# Performance

What metadata costs, each case against what an application does without it. This page is written by

` + "```sh" + `
go run ./tests/bench -doc docs/performance.md -svg docs/performance.svg
` + "```" + `

as root; ` + "`-list`, `-run` and `-short`" + ` measure less, ` + "`-json`" + ` gives data. It exits with 1 if a ratio misses its
target, by more than ` + "`-tolerance`" + `. Absolute times belong to the machine: they are printed and fail nothing.

`

const pageMethod = `## How it is measured

- **In turn.** The sides of a comparison are timed batch by batch in one run, each as often first as the others and as
  often behind one neighbour as behind the other, so that whatever else the machine does falls on all. A batch is 64
  operations (TCP streams: 4 MiB). The first tenth of the rounds warms up and does not count.
- **The ratio is the median of the rounds' ratios**; the quartiles beside it say how much the rounds differ. The times are
  medians, too.
- **Two network namespaces on a veth link**, the server's cgroup with the programs, the other side's sockets in none. An
  XDP producer gives each packet a packet id, a time and a service id. Cases where the kernel merges packets (GRO,
  streams) have none, as packets with metadata of their own are not merged.
- **Reads are from a queue that is full already.** What is sent, and the kernel's work on it up to the queue, is done on
  one CPU, and what is timed on another, as on hosts whose interrupts are spread: a record that is read comes from
  another CPU's cache. Threads are pinned, and the garbage collector runs between rounds. With all on one CPU
  (` + "`taskset -c 0 go run ./tests/bench`" + `) reads are cheaper, and batches save more.
- **"Itself, by another socket"** compares a plain socket with a plain one: how far it is from 1, and its quartiles, say
  what this machine can tell apart.
- **Growth** is a packet's whole way, sending, programs and reading, on one CPU. It is compared with the growth of plain
  sockets, which become slower, too, with many of them.
- **TCP streams** run on one CPU as well, with buffers of a fixed size: those that the kernel chooses differ from one
  connection to the next, and the throughput with them.
- **TCP connections** are opened, served and reset with client and server on one CPU, so that no work hides behind other
  work. All servers are one program ([tests/bench/acceptor](../tests/bench/acceptor)), which reads the service id from the
  SYN's metadata, from a PROXY v2 header, or not at all.
- **BPF times** are the kernel's own (bpf_stats), less those of a program that does nothing, measured beside: most of
  what bpf_stats says of a short program is its own reading of the clock.

`

// page returns the results as a page. picture is the picture's file, relative to the
// page, or empty.
func page(r Results, picture string) []byte {
	var b strings.Builder
	b.WriteString(pageHead)
	b.WriteString("## Results\n\n")
	m := r.Machine
	run := fmt.Sprintf("Linux %s, %s, %d CPUs (%s), %s; %s, %d rounds, %v.", m.Kernel, m.Arch, m.CPUs, m.CPU, m.Go,
		r.When.UTC().Format(time.DateOnly), r.Rounds, r.Took.Round(time.Second))
	if r.Short {
		run += " A short run: sizes are less than the targets are about."
	}
	b.WriteString(wrap(run) + "\n")
	if picture != "" {
		fmt.Fprintf(&b, "![The ratios as parts of their targets](%s)\n\n", picture)
	}
	b.WriteString(markdownTable(r.Rows))
	b.WriteString("\n" + bounds(r.Rows) + pageMethod)
	return []byte(strings.TrimRight(b.String(), "\n") + "\n")
}

// both names what was measured and what it was compared with.
func (r *Row) both() string {
	if r.Against == "" {
		return r.What
	}
	return r.What + ", against " + r.Against
}

// bounds says of each row that is not as it should be what bounds it.
func bounds(rows []Row) string {
	values := make(map[string]string)
	for i := range rows {
		values[rows[i].ID] = number(rows[i].Value.Median) + " " + string(rows[i].Unit)
	}
	var b strings.Builder
	for _, n := range notes {
		var about []string
		for _, r := range rows {
			if (r.Verdict == Missed || r.Verdict == Beyond) && n.about(r.ID) {
				about = append(about, fmt.Sprintf("%s: %s (%s)", r.both(), values[r.ID], r.target()))
			}
		}
		if about != nil {
			b.WriteString(wrap("**"+strings.Join(about, "; ")+".** "+fillIn(n.text, values)) + "\n")
		}
	}
	if b.Len() == 0 {
		return ""
	}
	return "## What bounds the rest\n\n" + b.String()
}

var placeholder = regexp.MustCompile(`\{[a-z/-]+\}`)

// fillIn puts the values of rows in the place of their ids.
func fillIn(text string, values map[string]string) string {
	return placeholder.ReplaceAllStringFunc(text, func(id string) string {
		if v := values[strings.Trim(id, "{}")]; v != "" {
			return v
		}
		return "(not measured)"
	})
}

// pageWidth is how long the page's lines are at most.
const pageWidth = 120

// wrap makes a paragraph of a text.
func wrap(text string) string {
	var b strings.Builder
	width := 0
	for _, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		if width > 0 && width+1+n > pageWidth {
			b.WriteByte('\n')
			width = 0
		} else if width > 0 {
			b.WriteByte(' ')
			width++
		}
		b.WriteString(word)
		width += n
	}
	b.WriteByte('\n')
	return b.String()
}

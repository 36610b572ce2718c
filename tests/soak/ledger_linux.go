// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// maxViolations bounds what is remembered: the first ones tell.
const maxViolations = 20

// A Ledger is what actors counted. Each keeps one of its own while it acts, so
// that counting takes no lock; at the end they become one.
type Ledger struct {
	Counts     map[string]int
	Flows      map[int]Flow
	Violations []string
}

// A Flow is what became of the datagrams to one socket, or one group of them.
type Flow struct {
	Sent, Received int
	Dropped        int    // by the sockets, whole aggregates as one
	Sum            uint64 // of what was sent, less what was received; see payloadSum
}

func (l *Ledger) add(name string, n int) {
	if n == 0 {
		return
	}
	if l.Counts == nil {
		l.Counts = make(map[string]int)
	}
	l.Counts[name] += n
}

func (l *Ledger) flow(number int, f Flow) {
	if l.Flows == nil {
		l.Flows = make(map[int]Flow)
	}
	sum := l.Flows[number]
	sum.Sent += f.Sent
	sum.Received += f.Received
	sum.Dropped += f.Dropped
	sum.Sum += f.Sum
	l.Flows[number] = sum
}

func (l *Ledger) violate(format string, args ...any) {
	l.add("violations", 1)
	if len(l.Violations) < maxViolations {
		l.Violations = append(l.Violations, fmt.Sprintf(format, args...))
	}
}

func (l *Ledger) merge(o *Ledger) { l.mergeAs("", o) }

// mergeAs puts a prefix in front of the names of what was counted.
func (l *Ledger) mergeAs(prefix string, o *Ledger) {
	for name, n := range o.Counts {
		l.add(prefix+name, n)
	}
	for number, f := range o.Flows {
		l.flow(number, f)
	}
	room := maxViolations - len(l.Violations)
	l.Violations = append(l.Violations, o.Violations[:min(room, len(o.Violations))]...)
}

// String lists the counts by name, and the violations.
func (l *Ledger) String() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(l.Counts)) {
		fmt.Fprintf(&b, "%-40s %10d\n", name, l.Counts[name])
	}
	for _, v := range l.Violations {
		fmt.Fprintf(&b, "VIOLATION: %s\n", v)
	}
	return b.String()
}

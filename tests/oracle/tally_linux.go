// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"sync"
	"text/tabwriter"
)

// A tally counts what answers were worth. Its methods may be called concurrently.
type tally struct {
	mu         sync.Mutex
	outcomes   [questions][outcomes]int
	flags      [questions]map[string]int
	modes      [modes]int // bytes
	bytes      int
	frames     int
	sent       [kinds]int
	violations []string
	// told are those that have been told of: the same answer may come many times.
	told map[string]bool
	// troubles are what the oracle could not do.
	troubles []string
}

// mostViolations is how many are told in full.
const mostViolations = 200

func (t *tally) add(a *answer, o outcome, where, why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.outcomes[a.question][o]++
	if a.failed == wrong && a.flags != 0 {
		if t.flags[a.question] == nil {
			t.flags[a.question] = make(map[string]int)
		}
		t.flags[a.question][fmt.Sprintf("%v: %v", o, a.flags)]++
	}
	same := fmt.Sprint(where, a.question, a.tag)
	if o == wrong && !t.told[same] && len(t.violations) < mostViolations {
		if t.told == nil {
			t.told = make(map[string]bool)
		}
		t.told[same] = true
		t.violations = append(t.violations, fmt.Sprintf("%s: %v after %d bytes: %s", where, a.question, a.read, why))
	}
	if o == undecided && why != "" {
		t.troubles = append(t.troubles, where+": "+why)
	}
}

func (t *tally) trouble(where string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.troubles = append(t.troubles, fmt.Sprintf("%s: %v", where, err))
}

// carried counts a connection's bytes, and the frames that the wire sent.
func (t *tally) carried(m mode, bytes int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bytes += bytes
	t.modes[m] += bytes
}

func (t *tally) sentFrames(frames []frame) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.frames += len(frames)
	for i := range frames {
		t.sent[frames[i].kind]++
	}
}

func (t *tally) wrong() (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for q := range t.outcomes {
		n += t.outcomes[q][wrong]
	}
	return n
}

// String is a table of the counts.
func (t *tally) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	tw := tabwriter.NewWriter(&b, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(tw, "\t")
	for q := range questions {
		fmt.Fprintf(tw, "%v\t", q)
	}
	fmt.Fprintln(tw)
	for o := range outcomes {
		fmt.Fprintf(tw, "%v\t", o)
		for q := range questions {
			fmt.Fprintf(tw, "%d\t", t.outcomes[q][o])
		}
		fmt.Fprintln(tw)
	}
	_ = tw.Flush()
	for q := range questions {
		if len(t.flags[q]) > 0 {
			fmt.Fprintf(&b, "%v with flags: %v\n", q, t.flags[q])
		}
	}
	fmt.Fprintf(&b, "%d bytes:", t.bytes)
	for m := range modes {
		fmt.Fprintf(&b, " %v %d,", m, t.modes[m])
	}
	fmt.Fprintf(&b, "\n%d frames:", t.frames)
	for k := range kinds {
		fmt.Fprintf(&b, " %v %d,", k, t.sent[k])
	}
	fmt.Fprintln(&b)
	return b.String()
}

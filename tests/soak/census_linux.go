// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Census is what a process holds when nothing goes on.
type Census struct {
	FDs, Goroutines int
	Memory          int // kB, see take
}

// take counts as memory what is resident, but for free pages that the runtime keeps
// nevertheless, and for stacks, of which it keeps as many as there ever were at a
// time: goroutines are counted by themselves.
func (c *Census) take() error {
	// What the first finds unreachable has its cleanups run, and they let go
	// of more.
	for range 3 {
		runtime.GC()
		time.Sleep(5 * time.Millisecond)
	}
	debug.FreeOSMemory()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	c.FDs, c.Goroutines = len(fds), runtime.NumGoroutine()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			c.Memory, err = strconv.Atoi(f[1])
		}
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	c.Memory -= int(m.HeapIdle-m.HeapReleased+m.StackInuse) / 1024
	return err
}

// growth watches what one process holds, from round to round.
type growth struct {
	name string
	take func(c *Census) error
	base Census // after the warm-up
	kB   []int
}

// warmUp is how many rounds pass until a process has all that it keeps.
const warmUp = 4

// Where a process may be on its way back to what it had, and the kernel on its way to
// free what nobody has: on a machine with much to do its workers take seconds. What
// leaked stays however long one waits.
const growthPatience = 30 * time.Second

// round is to be called when nothing goes on.
func (g *growth) round(number int, l *Ledger) error {
	var c Census
	for end := time.Now().Add(growthPatience); ; time.Sleep(10 * time.Millisecond) {
		c = Census{}
		if err := g.take(&c); err != nil {
			return err
		}
		if number < warmUp || c.FDs <= g.base.FDs && c.Goroutines <= g.base.Goroutines {
			break
		}
		if time.Now().After(end) {
			l.violate("round %d: %s has %d descriptors and %d goroutines, and had %d and %d",
				number, g.name, c.FDs, c.Goroutines, g.base.FDs, g.base.Goroutines)
			break
		}
	}
	if number < warmUp {
		g.base.FDs, g.base.Goroutines = max(g.base.FDs, c.FDs), max(g.base.Goroutines, c.Goroutines)
	}
	g.kB = append(g.kB, c.Memory)
	return nil
}

// How much more memory a process may have at the end, in percent. Of few rounds
// only much can be said: pages of the program itself come one by one as they are
// first used.
const (
	fewRounds    = 8
	growthOfFew  = 15
	enoughRounds = 60
	growthOfMany = 2
)

// end compares the memory of the last quarter of all rounds with that of the
// second. Medians: at any one time the runtime may have kept a little more, and the
// kernel may have taken pages back.
func (g *growth) end(l *Ledger) string {
	quarter := len(g.kB) / 4
	if len(g.kB) < fewRounds {
		return fmt.Sprintf("%-14s %3d descriptors, %3d goroutines, %d kB: too few rounds to compare\n", g.name,
			g.base.FDs, g.base.Goroutines, g.kB)
	}
	before, after := median(g.kB[quarter:2*quarter]), median(g.kB[len(g.kB)-quarter:])
	limit := growthOfMany
	if len(g.kB) < enoughRounds {
		limit = growthOfFew
	}
	if after*100 > before*(100+limit) {
		l.violate("%s: memory has grown from %d kB to %d kB", g.name, before, after)
	}
	return fmt.Sprintf("%-14s %3d descriptors, %3d goroutines, %d kB, later %d kB (%+.1f %%, at most %d %%)\n", g.name,
		g.base.FDs, g.base.Goroutines, before, after, 100*float64(after-before)/float64(before), limit)
}

func median(of []int) int {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[len(sorted)/2]
}

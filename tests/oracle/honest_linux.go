// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// measure prints how many reads have a record where the wire is no worse than
// wires are, and returns how many had a wrong one.
func measure(ctx context.Context, size int) (violations int, err error) {
	attachment, err := attach()
	if err != nil {
		return 0, err
	}
	defer attachment.close()
	l, err := newLab()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	fmt.Printf("%d bytes; lost, reordered and duplicated: 1 of 100 each\n", size)
	fmt.Println("| GRO | sent | written by | read by | reads | with a record | of these flagged | overrun | none | wrong |")
	fmt.Println("|---|---|---|---|---|---|---|---|---|---|")
	var sum tally
	for i := range 24 {
		if ctx.Err() != nil {
			return violations, ctx.Err()
		}
		gro, paced := i/12 == 1, i/6%2 == 1
		write := []uint8{1, 0}[i/3%2]
		read := []uint8{3, 0, 5}[i%3]
		c := connection{write: write, read: read, pause: 1, seed: 1, total: uint32(size), ops: honestOps(1), untroubled: true}
		if gro {
			c.group = 3
		}
		if paced {
			// Segments in a second: what readers keep up with.
			c.pace = 20_000 * min(choose(writeSizes[:], write), choose(segmentSizes[:], 0))
		}
		l.wire.forget()
		if err := l.apply(setting{gro: gro}); err != nil {
			return violations, err
		}
		var t tally
		k := &task{lab: l, plan: &c, port: l.nextPort(), tally: &t, where: "honest", fixed: true}
		k.run()
		fmt.Println(t.row(gro, paced, choose(writeSizes[:], write), choose(readSizes[:], read)))
		violations += t.wrong()
		sum.violations = append(sum.violations, t.violations...)
		sum.troubles = append(sum.troubles, t.troubles...)
	}
	for _, s := range append(sum.troubles, sum.violations[:min(20, len(sum.violations))]...) {
		fmt.Println(s)
	}
	return violations, nil
}

// row is what honest traffic got, as a row of a table.
func (t *tally) row(gro, paced bool, write, read int) string {
	o := &t.outcomes[ofRead]
	all := 0
	for _, n := range o {
		all += n
	}
	share := func(n int) string { return fmt.Sprintf("%.3f %%", 100*float64(n)/float64(max(all, 1))) }
	had := o[right] + o[rightInDoubt] + o[wrongInDoubt] + o[undecided] + o[wrong]
	return "| " + strings.Join([]string{
		map[bool]string{false: "off", true: "on"}[gro],
		map[bool]string{false: "as fast as can be", true: "20,000 segments/s"}[paced], fmt.Sprint(write), fmt.Sprint(read), fmt.Sprint(all),
		share(had), share(o[rightInDoubt] + o[wrongInDoubt]), share(o[overrun]), share(o[noMetadata]), fmt.Sprint(o[wrong]),
	}, " | ") + " |"
}

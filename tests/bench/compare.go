// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"
)

// batchSize is how many operations are timed at once, and how many datagrams wait
// before they are read.
const batchSize = 64

// collectEvery is how many rounds the garbage collector waits: too few for the heap
// to grow, as each fresh page would be charged to whoever allocates.
const collectEvery = 64

// mayLose is how many batches of a comparison may have to be timed again because a
// packet was lost, as happens on machines that are too busy.
const mayLose = 5

// A contender is one side of a comparison.
type contender struct {
	name string
	// ops is how many operations a batch is; 0: batchSize.
	ops int
	// prepare makes ready for a batch and is not timed. It may be nil.
	prepare func() error
	batch   func() error
}

// interleave times batches of the contenders in turn. Each is first as often as
// the others, and has each of its neighbours before it as often as behind it. The
// first tenth of the rounds warms up and does not count.
func interleave(ctx context.Context, rounds int, contenders ...contender) (samples, error) {
	times := make(samples)
	warmUp := rounds/10 + 2
	n, lost := len(contenders), 0
	for round := range warmUp + rounds {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if round%collectEvery == 0 {
			// It does not run of itself, see measure.
			runtime.GC()
		}
		for i := range n {
			if round%2 == 1 {
				i = n - 1 - i
			}
			c := contenders[(i+round/2)%n]
			took, err := c.time()
			if errors.Is(err, os.ErrDeadlineExceeded) && lost < mayLose {
				// The next batch finds nothing of this one.
				lost++
				took, err = c.time()
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			if round >= warmUp {
				times[c.name] = append(times[c.name], took)
			}
		}
	}
	return times, nil
}

// time returns how long an operation of one batch took, in ns.
func (c *contender) time() (float64, error) {
	if c.prepare != nil {
		if err := c.prepare(); err != nil {
			return 0, err
		}
	}
	start := time.Now()
	err := c.batch()
	took := time.Since(start)
	ops := c.ops
	if ops == 0 {
		ops = batchSize
	}
	return float64(took.Nanoseconds()) / float64(ops), err
}

// repeat returns a function that calls f n times.
func repeat(n int, f func() error) func() error {
	return func() error {
		for range n {
			if err := f(); err != nil {
				return err
			}
		}
		return nil
	}
}

// each is repeat for a batch.
func each(f func() error) func() error { return repeat(batchSize, f) }

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"runtime"
)

// A meter is what the cases measure with.
type meter struct {
	ctx    context.Context
	cpus   cpus
	sender *worker
	// rounds is how many rounds a comparison of short batches has.
	rounds int
	// scale is what the sizes of the cases that grow are divided by.
	scale int
	labs  labs
	// closers release what the case at work has made.
	closers []func() error
}

func newMeter(ctx context.Context, rounds, scale int) (*meter, error) {
	m := &meter{ctx: ctx, rounds: rounds, scale: scale}
	var err error
	if m.cpus, err = findCPUs(); err != nil {
		return nil, err
	}
	m.sender, err = startWorker(m.cpus.sender)
	return m, err
}

// close releases everything, what was made last first.
func (m *meter) close() error {
	return errors.Join(m.end(), m.sender.stop(), m.labs.close())
}

// atEnd has f called when the case is over.
func (m *meter) atEnd(f func() error) { m.closers = append(m.closers, f) }

// end ends a case.
func (m *meter) end() error {
	var errs []error
	for i := len(m.closers) - 1; i >= 0; i-- {
		errs = append(errs, m.closers[i]())
	}
	m.closers = nil
	return errors.Join(errs...)
}

// compare interleaves the contenders on the reader's CPU. weight says how much
// longer than usual a round takes.
func (m *meter) compare(weight int, contenders ...contender) (s samples, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := pin(m.cpus.reader); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.cpus.unpin()) }()
	return m.inTurn(weight, contenders...)
}

// inTurn is compare for work of several goroutines, of which one runs at a time:
// no work hides behind other work. There is one P, so that no thread waits for
// packets either, which would be woken by each of them.
func (m *meter) inTurn(weight int, contenders ...contender) (samples, error) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	return m.atOnce(weight, contenders...)
}

// atOnce is compare for work of several goroutines at the same time.
func (m *meter) atOnce(weight int, contenders ...contender) (samples, error) {
	return interleave(m.ctx, max(m.rounds/weight, 5), contenders...)
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math/rand/v2"
	"time"
)

// Names of testprog's programs.
const (
	echoUDP = "echo_udp"
	echoTCP = "echo_tcp"
)

// churnAttachments attaches and detaches while others send and receive, until done
// is closed: in one process, in two that share, beside each other; some end in an
// orderly way, and some are killed. The first holder is there already.
func (s *soaking) churnAttachments(first *attachment, pl *plan, rng *rand.Rand, done <-chan struct{}, l *Ledger) (err error) {
	holders := []*attachment{first}
	var w *watch
	stopWatching := func() error {
		if w == nil {
			return nil
		}
		_, _, err := w.end(l)
		w = nil
		return err
	}
	defer func() {
		if werr := stopWatching(); err == nil {
			err = werr
		}
		for _, a := range holders {
			a.end(l)
		}
	}()
	for pause(rng, done) {
		if err := stopWatching(); err != nil {
			return err
		}
		if n := len(holders); n == 2 || n == 1 && rng.IntN(3) != 0 {
			i := rng.IntN(n)
			a := holders[i]
			holders = append(holders[:i], holders[i+1:]...)
			if rng.IntN(2) == 0 {
				a.end(l)
			} else {
				if err := a.detach(l); err != nil {
					return err
				}
				l.add("attachments given up", 1)
			}
		} else {
			opts := pl.options
			opts.Private = rng.IntN(4) == 0
			a, err := s.attach(opts, rng.IntN(3) == 0)
			if err != nil {
				return err
			}
			a.count(l)
			holders = append(holders, a)
		}
		if len(holders) > 0 {
			if w, err = s.watch(holders[0], pl); err != nil {
				return err
			}
		}
	}
	return nil
}

// count counts one that was made.
func (a *attachment) count(l *Ledger) {
	l.add("attachments", 1)
	if a.Shared {
		l.add("attachments shared", 1)
	}
	if a.cmd == nil {
		l.add("attachments of the soak's own process", 1)
	}
}

// end is the sudden one.
func (a *attachment) end(l *Ledger) {
	if a.cmd != nil {
		l.add("attaching processes killed", 1)
	} else {
		l.add("attachments given up", 1)
	}
	a.kill()
}

// churnProducer takes the producer away, brings it back, in the driver or not, and
// puts another program in its place.
func (s *soaking) churnProducer(p *producer, rng *rand.Rand, done <-chan struct{}, l *Ledger) (ringResets int, err error) {
	for pause(rng, done) {
		replace := p.link != nil && rng.IntN(3) == 0
		switch {
		case p.link == nil:
			err = p.attach(pick(rng, []string{echoUDP, echoTCP}), rng.IntN(2) == 0)
			if err == nil {
				err = s.ids.addOwn()
			}
			l.add("producer attached", 1)
		case replace:
			err = p.replace(pick(rng, []string{echoUDP, echoTCP}))
			l.add("producer replaced", 1)
		default:
			err = p.detach()
			l.add("producer detached", 1)
		}
		if err != nil {
			return ringResets, err
		}
		if p.native && !replace {
			ringResets++
		}
	}
	return ringResets, nil
}

// pause waits for a while, and returns false once done is closed.
func pause(rng *rand.Rand, done <-chan struct{}) bool {
	timer := time.NewTimer(20*time.Millisecond + time.Duration(rng.IntN(200))*time.Millisecond)
	defer timer.Stop()
	select {
	case <-done:
		return false
	case <-timer.C:
		return true
	}
}

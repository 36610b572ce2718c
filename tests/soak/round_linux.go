// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sockmeta/sockmeta-go/internal/netlab"
)

// ringSize is how many packets wait in front of an XDP program in the veth driver
// at most (VETH_RING_SIZE): they are gone, uncounted, when one is attached or
// detached.
const ringSize = 256

// settlePatience is how long nothing arrives until what is missing is taken for
// lost.
const settlePatience = time.Second

// round does what a plan says, from nothing to nothing, and checks what came of it.
func (s *soaking) round(number int) (err error) {
	pl := s.planner.next()
	chaos := rand.New(rand.NewPCG(s.planner.rng.Uint64(), 1))
	l := new(Ledger)
	l.add("rounds", 1)
	pl.countTasks(l)
	defer func() { s.ledger.merge(l) }()

	p, err := newProducer(s.pair.Server, s.pair.ServerIf)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	if pl.producer == always {
		if err := p.attach(pl.program, pl.native); err != nil {
			return err
		}
	}
	var a *attachment
	if pl.attachments != never {
		if a, err = s.attach(pl.options, pl.own); err != nil {
			return err
		}
		a.count(l)
		defer a.kill()
	}
	dropsBefore, err := linkDrops(s.pair)
	if err != nil {
		return err
	}
	for i, w := range s.workers {
		if err := w.call("Open", pl.tasks[i], nil); err != nil {
			return err
		}
	}
	var wire *watch
	if pl.attachments == always {
		if wire, err = s.watch(a, pl); err != nil {
			return err
		}
		defer wire.close()
	}
	if err := s.ids.addOwn(); err != nil {
		return err
	}

	ringResets, err := s.act(pl, p, a, chaos, l)
	if err != nil {
		return err
	}
	if err := settle(s.workers, pl.gro); err != nil {
		return err
	}
	var with, without int
	if wire != nil {
		if with, without, err = wire.end(l); err != nil {
			return err
		}
	}
	for _, w := range s.workers {
		var own Ledger
		if err := w.call("Close", false, &own); err != nil {
			return err
		}
		l.merge(&own)
	}
	dropsAfter, err := linkDrops(s.pair)
	if err != nil {
		return err
	}
	account(l, pl.gro, dropsAfter-dropsBefore, ringResets)
	accountStreams(l)
	l.Flows = nil // their numbers begin anew
	if wire != nil {
		exact(l, with, without)
		for _, what := range []string{
			"udp lost: not supported", "udp lost: no record", "udp peeked, not supported",
			"tcp lost: not supported", "tcp lost: no record",
			"tcp opening lost: not supported", "tcp set metadata: not supported",
		} {
			if n := l.Counts[what]; n != 0 {
				l.violate("%s: %d, of sockets that opted in before", what, n)
			}
		}
	}
	if err := s.judgeProducer(pl, p, l); err != nil {
		return err
	}
	if pl.attachments == always {
		if err := a.detach(l); err != nil {
			return err
		}
		l.add("attachments given up", 1)
	}
	if err := p.close(); err != nil {
		return err
	}
	return s.quiesce(number, l)
}

// watch begins to read the records of an attachment.
func (s *soaking) watch(a *attachment, pl *plan) (*watch, error) {
	w, err := watchWire(s.pair, a.Maps, pl.connections)
	if err != nil {
		return nil, fmt.Errorf("watch: %w", err)
	}
	return w, s.ids.addOwn()
}

// act has the senders send, and others attach and detach meanwhile. It returns how
// often the driver's ring of packets may have been emptied.
func (s *soaking) act(pl *plan, p *producer, a *attachment, chaos *rand.Rand, l *Ledger) (ringResets int, err error) {
	done := make(chan struct{})
	seeds := [3]uint64{chaos.Uint64(), chaos.Uint64(), chaos.Uint64()}
	var ledgers [3]Ledger
	var churnErrs [3]error
	var churning sync.WaitGroup
	if pl.attachments == changing {
		churning.Go(func() {
			churnErrs[0] = s.churnAttachments(a, pl, rand.New(rand.NewPCG(seeds[0], 0)), done, &ledgers[0])
		})
	}
	if pl.producer == changing {
		churning.Go(func() {
			ringResets, churnErrs[1] = s.churnProducer(p, rand.New(rand.NewPCG(seeds[1], 0)), done, &ledgers[1])
		})
	}
	churning.Go(func() {
		churnErrs[2] = s.runApplications(pl, rand.New(rand.NewPCG(seeds[2], 0)), done, &ledgers[2])
	})
	errs := make([]error, len(s.workers))
	var running sync.WaitGroup
	for i, w := range s.workers {
		running.Go(func() { errs[i] = w.call("Run", false, nil) })
	}
	running.Wait()
	close(done)
	churning.Wait()
	for i := range ledgers {
		l.merge(&ledgers[i])
	}
	return ringResets, errors.Join(append(errs, churnErrs[:]...)...)
}

// settle waits until all datagrams have been read or dropped, or do not come.
func settle(workers []*workerProcess, gro map[int]bool) error {
	missing, since := 0, time.Now()
	for {
		var l Ledger
		for _, w := range workers {
			var own Ledger
			if err := w.call("Progress", false, &own); err != nil {
				return err
			}
			l.merge(&own)
		}
		now := 0
		for number, f := range l.Flows {
			if gro[number] && f.Dropped > 0 {
				continue
			}
			now += f.Sent - f.Received - f.Dropped
		}
		if now != missing {
			missing, since = now, time.Now()
		}
		// account says what those mean that do not come, or came twice.
		if missing <= 0 || time.Since(since) > settlePatience {
			return nil
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// account compares what was sent with what arrived and what the kernel dropped.
func account(l *Ledger, gro map[int]bool, linkDrops, ringResets int) {
	var missing int
	for number, f := range l.Flows {
		l.add("udp datagrams sent", f.Sent)
		l.add("udp datagrams received", f.Received)
		lost := f.Sent - f.Received - f.Dropped
		if lost == 0 && f.Dropped == 0 {
			l.add("udp received in flows without drops", f.Received)
		}
		switch {
		case lost < 0 && !gro[number]:
			l.violate("flow %d: %+v: more than were sent", number, f)
		case lost == 0 && f.Dropped == 0 && f.Sum != 0:
			l.violate("flow %d: %+v: not the payloads that were sent", number, f)
		case gro[number] && f.Dropped > 0:
			// One that was dropped was several.
			l.add("udp dropped by sockets", f.Sent-f.Received)
		default:
			l.add("udp dropped by sockets", f.Dropped)
			missing += lost
		}
	}
	byLink := min(missing, linkDrops)
	l.add("udp dropped by the link", byLink)
	missing -= byLink
	l.add("udp dropped with the link's ring", missing)
	if missing > ringResets*ringSize {
		l.violate("%d datagrams are nowhere: %+v, the link dropped %d, its ring was reset %d times", missing, l.Flows, linkDrops, ringResets)
	}
}

// accountStreams checks that each connection was served, and that none was reset but
// those that were to be.
func accountStreams(l *Ledger) {
	dialed, accepted := l.Counts["tcp dialed"], l.Counts["tcp accepted"]
	aborted, reset := l.Counts["tcp aborted"], l.Counts["tcp accepted and reset"]
	if accepted > dialed || accepted < dialed-aborted || reset > aborted {
		l.violate("tcp: dialed %d connections and aborted %d, accepted %d of which %d were reset", dialed, aborted, accepted, reset)
	}
}

// exact compares what left, on the wire, with what was sent while the attachment
// was there all the time.
func exact(l *Ledger, with, without int) {
	n := l.Counts
	sent := n["udp sent with metadata"] + n["udp sent, metadata lost: not supported"] + n["udp sent, metadata lost: overrun"]
	if plain := n["udp sent without metadata"] + n["udp trains"]; with != sent || without != plain {
		l.violate("wire: %d datagrams with metadata of %d, %d without of %d", with, sent, without, plain)
	}
}

// judgeProducer checks that all packets had their metadata while the producer was
// there all the time.
func (s *soaking) judgeProducer(pl *plan, p *producer, l *Ledger) error {
	refused, err := p.refused()
	if err != nil {
		return err
	}
	l.add("producer had no room", int(refused))
	bare := l.Counts["udp without area"]
	if pl.producer == always && pl.program == echoUDP && bare > int(refused) {
		l.violate("%d datagrams lost their area, of %d the producer says so", bare, refused)
	}
	return nil
}

// quiesce checks that nothing is left of a round.
func (s *soaking) quiesce(number int, l *Ledger) error {
	for _, g := range s.growths {
		if err := g.round(number, l); err != nil {
			return err
		}
	}
	if err := s.judgeSockets(number, l); err != nil {
		return err
	}
	seen, left := s.ids.left(growthPatience)
	l.add("bpf objects made and freed", seen-len(left))
	if len(left) > 0 {
		l.violate("round %d: BPF objects are left: %v", number, left)
	}
	cgroups, err := netlab.OwnCgroups()
	if err == nil && len(cgroups) != 2 {
		l.violate("round %d: cgroups %v", number, cgroups)
	}
	return err
}

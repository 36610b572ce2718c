// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testprog"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// maxApplications is how many there are at a time at most.
const maxApplications = 2

// An application is a process that attaches by itself, to the cgroup in which the
// others of its kind are as well, and sends to its own sockets over loopback. It is
// started again and again, and some are killed while they send.
type application struct {
	// local says that it lets through what its senders give. Else its sockets
	// attach without being told to, and a producer is at its loopback device.
	local bool
	tasks []Task
}

func (s *soaking) runApplications(pl *plan, rng *rand.Rand, done <-chan struct{}, l *Ledger) error {
	errs := make([]error, len(pl.applications))
	ledgers := make([]Ledger, len(pl.applications))
	var running sync.WaitGroup
	for i := range pl.applications {
		own := rand.New(rand.NewPCG(rng.Uint64(), uint64(i)))
		running.Go(func() { errs[i] = s.runApplication(pl, i, own, done, &ledgers[i]) })
	}
	running.Wait()
	for i := range ledgers {
		l.merge(&ledgers[i])
	}
	return errors.Join(errs...)
}

func (s *soaking) runApplication(pl *plan, i int, rng *rand.Rand, done <-chan struct{}, l *Ledger) error {
	app := pl.applications[i]
	p, err := newProducer(s.hosts[i], "lo")
	if err != nil {
		return err
	}
	defer p.close()
	if !app.local {
		if err := p.attach(echoUDP, false); err != nil {
			return err
		}
	}
	if err := s.ids.addOwn(); err != nil {
		return err
	}
	for {
		if err := s.live(&app, s.hosts[i], len(pl.applications) == 1, rng, l); err != nil {
			return fmt.Errorf("application: %w", err)
		}
		if !pause(rng, done) {
			break
		}
	}
	refused, err := p.refused()
	if n := l.Counts["application: udp without area"]; err == nil && !app.local && n > int(refused) {
		l.violate("application: %d datagrams lost their area, of %d the producer says so", n, refused)
	}
	return err
}

// live is the life of one. Alone, it has a cgroup of its own: what others that die
// have attached may go while it is about to join that.
func (s *soaking) live(app *application, host *netlab.Namespace, alone bool, rng *rand.Rand, l *Ledger) (err error) {
	dropsBefore, err := deviceCount(host, "lo", receiveDrops)
	if err != nil {
		return err
	}
	cg := s.apps
	if alone {
		if cg, err = netlab.NewCgroup("soak-app"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, cg.Close()) }()
	}
	w, err := startWorker("application", place{cgroup: cg, netns: host, uid: privileged}, nil)
	if err != nil {
		return err
	}
	defer w.stop()
	if app.local {
		var supported bool
		if err := w.call("AttachLocal", false, &supported); err != nil {
			return err
		}
		if !supported {
			l.add("application: local not supported", 1)
		}
	}
	if err := w.call("Open", app.tasks, nil); err != nil {
		return err
	}
	if err := s.ids.add(w.cmd.Process.Pid); err != nil {
		return err
	}
	ran := make(chan error, 1)
	go func() { ran <- w.call("Run", false, nil) }()
	if rng.IntN(2) == 0 {
		select {
		case <-time.After(time.Duration(rng.Int64N(int64(2 * app.tasks[0].For)))):
		case err := <-ran:
			ran <- err
		}
		_ = w.cmd.Process.Kill()
		<-ran
		l.add("application: killed", 1)
		return nil
	}
	if err := <-ran; err != nil {
		return err
	}
	if err := settle([]*workerProcess{w}, nil); err != nil {
		return err
	}
	var own Ledger
	if err := w.call("Close", false, &own); err != nil {
		return err
	}
	dropsAfter, err := deviceCount(host, "lo", receiveDrops)
	if err != nil {
		return err
	}
	account(&own, nil, dropsAfter-dropsBefore, 0)
	if n := own.Counts["udp lost: not supported"] + own.Counts["udp lost: no record"]; alone && n != 0 {
		own.violate("application: %d datagrams had no record, of sockets that attached by themselves", n)
	}
	own.add("ended", 1)
	l.mergeAs("application: ", &own)
	return nil
}

// AttachLocal is an application's: it attaches by itself, and lets through what it
// sends to itself. The attachment stays as long as the process.
func (w *Worker) AttachLocal(_ bool, supported *bool) (err error) {
	policy := bpf.DefaultPolicy()
	policy.LocalKeys = []uint8{uint8(testprog.KeyID)}
	w.attachment, err = bpf.Attach(bpf.Options{Policy: &policy})
	if err != nil {
		return err
	}
	_, err = w.attachment.AttachLocal("lo")
	*supported = err == nil
	if errors.Is(err, sockmeta.ErrNotSupported) {
		return nil
	}
	return err
}

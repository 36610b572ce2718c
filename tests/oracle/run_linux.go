// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"sync"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
)

// An attachment is a cgroup with this process and the programs.
type attachment struct {
	cgroup *netlab.Cgroup
	bpf    *bpf.Attachment
}

func attach() (a *attachment, err error) {
	a = new(attachment)
	if a.cgroup, err = netlab.NewCgroup("oracle"); err != nil {
		return nil, err
	}
	if _, err = a.cgroup.Enter(); err == nil {
		a.bpf, err = bpf.Attach(bpf.Options{Cgroup: a.cgroup.Path()})
	}
	if err != nil {
		return nil, errors.Join(err, a.cgroup.Close())
	}
	return a, nil
}

func (a *attachment) close() { _ = errors.Join(a.bpf.Close(), a.cgroup.Close()) }

func joinClose(err error, l *lab) error { return errors.Join(err, l.close()) }

const (
	firstPort, ports = 2000, 10_000
	// atOnce is how many connections of a plan are open at a time: most of the time
	// they wait for something.
	atOnce = 6
)

// nextPort returns another port for each connection: those of before may be in
// TIME-WAIT.
func (l *lab) nextPort() uint16 {
	l.connections++
	return uint16(firstPort + l.connections%ports)
}

// runPlan runs the connections of a plan, or only one of them.
func (l *lab) runPlan(p *plan, only int, t *tally, name string, verbose bool) error {
	l.wire.forget()
	if err := l.apply(p.setting); err != nil {
		return err
	}
	var wg sync.WaitGroup
	free := make(chan struct{}, atOnce)
	for i := range p.conns {
		if only >= 0 && i != only {
			continue
		}
		k := &task{lab: l, plan: &p.conns[i], port: l.nextPort(), tally: t}
		k.where = fmt.Sprintf("%s -connection %d (%v)", name, i, k.plan.mode)
		if verbose {
			fmt.Printf("%s: %v; %v\n", k.where, k.plan, p.setting)
		}
		free <- struct{}{}
		wg.Go(func() {
			k.run()
			<-free
		})
	}
	wg.Wait()
	l.wire.mu.Lock()
	frames := l.wire.frames[1:]
	l.wire.mu.Unlock()
	t.sentFrames(frames)
	return nil
}

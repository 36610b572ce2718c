// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/internal/netlab"
)

// soaking is one run of the soak.
type soaking struct {
	pair *netlab.Pair
	// The attachments are at the outer cgroup and the sockets in the inner one:
	// what finds programs at its own cgroup joins them for as long as it lives.
	outer, inner *netlab.Cgroup
	// apps is beside them, and hosts are a namespace for each application.
	apps    *netlab.Cgroup
	hosts   [maxApplications]*netlab.Namespace
	workers []*workerProcess
	growths []*growth
	ids     ids
	planner planner
	ledger  Ledger
}

// soak runs rounds for a duration, and returns what it counted. The error is one of
// the soak's own.
func soak(ctx context.Context, duration time.Duration, seed uint64, progress io.Writer) (l *Ledger, err error) {
	s := &soaking{planner: planner{rng: rand.New(rand.NewPCG(seed, 0))}}
	l = &s.ledger
	defer func() { err = errors.Join(err, s.close()) }()
	fmt.Fprintf(progress, "soak: for %v, -seed %d\n", duration, seed)
	if err := s.prepare(); err != nil {
		return l, err
	}
	var kernel string
	begin := time.Now()
	end, tell := begin.Add(duration), begin.Add(time.Minute)
	for number := 0; time.Now().Before(end) && ctx.Err() == nil; number++ {
		known := len(l.Violations)
		if err := s.round(number); err != nil {
			return l, fmt.Errorf("round %d: %w", number, err)
		}
		for _, v := range l.Violations[known:] {
			fmt.Fprintf(progress, "soak: round %d: VIOLATION: %s\n", number, v)
		}
		if number == warmUp {
			if kernel, err = kernelMemory(); err != nil {
				return l, err
			}
		}
		if now := time.Now(); now.After(tell) {
			tell = now.Add(time.Minute)
			fmt.Fprintf(progress, "soak: %v, %d rounds, %d violations\n", now.Sub(begin).Round(time.Second),
				number+1, l.Counts["violations"])
		}
	}
	for _, g := range s.growths {
		fmt.Fprint(progress, g.end(l))
	}
	if kernel != "" {
		later, err := kernelMemory()
		if err != nil {
			return l, err
		}
		fmt.Fprintf(progress, "all of the kernel:%s\n            later:%s\n", kernel, later)
	}
	l.judgeCoverage()
	return l, nil
}

func (s *soaking) prepare() (err error) {
	if s.pair, err = netlab.NewPair(); err != nil {
		return err
	}
	s.planner.pair = s.pair
	// A datagram that waits for a neighbour may be dropped where nobody sees it.
	if err := s.pair.Introduce(); err != nil {
		return err
	}
	if s.outer, err = netlab.NewCgroup("soak"); err != nil {
		return err
	}
	if s.apps, err = netlab.NewCgroup("soak-apps"); err != nil {
		return err
	}
	for i := range s.hosts {
		if s.hosts[i], err = netlab.New(); err != nil {
			return err
		}
	}
	leave, err := s.outer.Enter()
	if err != nil {
		return err
	}
	s.inner, err = netlab.NewCgroup("sockets")
	if err := errors.Join(err, leave()); err != nil {
		return err
	}
	for _, side := range []struct {
		netns *netlab.Namespace
		names [2]string
		uids  [2]int
	}{
		{s.pair.Server, [2]string{"server root", "server nobody"}, [2]int{0, nobody}},
		{s.pair.Client, [2]string{"client one", "client two"}, [2]int{nobody, nobody}},
	} {
		peers, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return os.NewSyscallError("socketpair", err)
		}
		for i, fd := range peers {
			peer := os.NewFile(uintptr(fd), "peer")
			defer peer.Close()
			w, err := startWorker(side.names[i], place{cgroup: s.inner, netns: side.netns, uid: side.uids[i]}, peer)
			if err != nil {
				return err
			}
			s.workers = append(s.workers, w)
			s.growths = append(s.growths, &growth{name: w.name, take: func(c *Census) error { return w.call("Census", false, c) }})
		}
	}
	s.growths = append(s.growths, &growth{name: "soak itself", take: (*Census).take})
	return nil
}

func (s *soaking) close() error {
	for _, w := range s.workers {
		w.stop()
	}
	var errs []error
	for _, cg := range []*netlab.Cgroup{s.inner, s.outer, s.apps} {
		if cg != nil {
			errs = append(errs, cg.Close())
		}
	}
	for _, host := range s.hosts {
		if host != nil {
			errs = append(errs, host.Close())
		}
	}
	if s.pair != nil {
		errs = append(errs, s.pair.Close())
	}
	return errors.Join(errs...)
}

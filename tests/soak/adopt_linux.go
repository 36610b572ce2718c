// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// adopter serves the connections that a server in another process has accepted and
// passed on.
type adopter struct {
	Task
	closed atomic.Bool
}

func (a *adopter) serves() bool     { return true }
func (a *adopter) open() error      { return nil }
func (a *adopter) close()           { a.closed.Store(true) }
func (a *adopter) progress(*Ledger) {}

func (a *adopter) act(l *Ledger) {
	var wg sync.WaitGroup
	var ledgers []*Ledger
	for number := uint64(0); ; number++ {
		c, err := a.take()
		if err != nil {
			l.violate("taking a connection: %v", err)
			break
		}
		if c == nil {
			break
		}
		own := new(Ledger)
		ledgers = append(ledgers, own)
		wg.Go(func() { serve(c, true, rand.New(rand.NewPCG(a.Seed, number)), own) })
	}
	wg.Wait()
	for _, own := range ledgers {
		l.merge(own)
	}
}

// take waits for a connection, and returns nil when there will be no more: what the
// giver gave, it gave before it was closed.
func (a *adopter) take() (*sockmeta.TCPConn, error) {
	for {
		closed := a.closed.Load()
		f, err := takeFile()
		if err == nil {
			defer f.Close()
			c, err := net.FileConn(f)
			if err != nil {
				return nil, err
			}
			t, ok := c.(*net.TCPConn)
			if !ok {
				return nil, fmt.Errorf("a %T", c)
			}
			return sockmeta.WrapTCP(t), nil
		}
		if !errors.Is(err, unix.EAGAIN) {
			return nil, err
		}
		if closed {
			return nil, nil
		}
		const milliseconds = 20
		fds := []unix.PollFd{{Fd: peerFD, Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, milliseconds); err != nil && err != unix.EINTR {
			return nil, err
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/sockmeta/sockmeta-go/internal/testprog"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// dialer opens connections to each of its ports in turn: to every second with
// metadata, and of those to every second sets it once it is open.
type dialer struct{ Task }

func (d *dialer) serves() bool     { return false }
func (d *dialer) open() error      { return nil }
func (d *dialer) close()           {}
func (d *dialer) progress(*Ledger) {}

// How many connections a dialer has open, and how many it opens in all: each
// leaves a port in TIME-WAIT.
const (
	atOnce         = 4
	maxConnections = 200
)

func (d *dialer) act(l *Ledger) {
	end := time.Now().Add(d.For)
	var ledgers [atOnce]Ledger
	var wg sync.WaitGroup
	for i := range ledgers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(d.Seed, uint64(i)))
			for n := i; n < maxConnections && time.Now().Before(end); n += atOnce {
				p := n % len(d.Ports)
				if err := d.connection(p, rng, &ledgers[i]); err != nil {
					ledgers[i].violate("tcp to port %d: %v", d.Ports[p], err)
				}
			}
		})
	}
	wg.Wait()
	for i := range ledgers {
		l.merge(&ledgers[i])
	}
}

// connectionID is what all packets to a port should have in their metadata: the
// port, or, marked as such, nothing.
func connectionID(i int, port uint16) uint64 {
	if i%2 == 0 {
		return uint64(port)
	}
	return uint64(port) | noMetadata
}

func (d *dialer) connection(i int, rng *rand.Rand, l *Ledger) error {
	id := connectionID(i, d.Ports[i])
	var md sockmeta.Metadata
	if err := md.SetUint64(testprog.KeyID, id); err != nil {
		return err
	}
	dial := sockmeta.Dialer{Dialer: net.Dialer{Timeout: tcpPatience}}
	with := id&noMetadata == 0
	if with && i%4 == 0 {
		dial.Metadata = &md
	}
	conn, err := dial.Dial(d.Network, netip.AddrPortFrom(d.Remote.Addr(), d.Ports[i]).String())
	if err != nil {
		return err
	}
	c := conn.(*sockmeta.TCPConn)
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(tcpPatience)); err != nil {
		return err
	}
	l.add("tcp dialed", 1)
	if with {
		err := c.SetMetadata(&md)
		switch {
		case err == nil:
			l.add("tcp set metadata", 1)
		case errors.Is(err, sockmeta.ErrNotSupported):
			l.add("tcp set metadata: not supported", 1)
		default:
			return err
		}
	}
	sent, err := writeStream(c, rng)
	if err != nil {
		return err
	}
	abort := rng.IntN(8) == 0
	if abort {
		// Closing it is to reset it.
		err = c.SetLinger(0)
	} else {
		err = c.CloseWrite()
	}
	if err != nil {
		return err
	}
	if abort {
		l.add("tcp aborted", 1)
		return nil
	}
	var answer [8]byte
	if _, err := io.ReadFull(c, answer[:]); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	if got := binary.BigEndian.Uint64(answer[:]); got != sent {
		return fmt.Errorf("sent %d bytes, of which %d arrived", sent, got)
	}
	l.add("tcp bytes", int(sent))
	return nil
}

func writeStream(c *sockmeta.TCPConn, rng *rand.Rand) (sent uint64, err error) {
	b := make([]byte, 4000)
	for range 1 + rng.IntN(64) {
		n := 1 + rng.IntN(len(b))
		for i := range n {
			b[i] = streamByte(sent + uint64(i))
		}
		if n, err = c.Write(b[:n]); err != nil {
			return sent, err
		}
		sent += uint64(n)
		// Without pauses the reader would always be behind.
		if rng.IntN(8) == 0 {
			time.Sleep(time.Duration(rng.IntN(int(time.Millisecond))))
		}
	}
	return sent, nil
}

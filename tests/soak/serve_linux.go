// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/testprog"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// tcpPatience is more than a connection takes.
const tcpPatience = 20 * time.Second

// server accepts connections at its ports, reads each to its end, and answers with
// the number of bytes that it read. Every fourth port's connections it passes on
// where it has somebody to pass them to.
type server struct {
	Task
	listeners []*sockmeta.TCPListener
}

func (s *server) serves() bool { return true }

func (s *server) open() error {
	for _, port := range s.Ports {
		l, err := sockmeta.ListenTCP(s.Network, &net.TCPAddr{Port: int(port)})
		if err != nil {
			return err
		}
		s.listeners = append(s.listeners, l)
	}
	return nil
}

func (s *server) close() {
	for _, l := range s.listeners {
		_ = l.Close()
	}
}

func (s *server) progress(*Ledger) {}

func (s *server) act(l *Ledger) {
	ledgers := make([]Ledger, len(s.listeners))
	var wg sync.WaitGroup
	for i, listener := range s.listeners {
		wg.Go(func() { s.accept(listener, i, &ledgers[i]) })
	}
	wg.Wait()
	for i := range ledgers {
		l.merge(&ledgers[i])
	}
}

func (s *server) accept(listener *sockmeta.TCPListener, port int, l *Ledger) {
	var wg sync.WaitGroup
	var ledgers []*Ledger
	for number := uint64(port) << 32; ; number++ {
		c, err := listener.AcceptTCP()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				l.violate("accept: %v", err)
			}
			break
		}
		if s.Handover == give && port%4 == 1 {
			err := giveSocket(c)
			_ = c.Close()
			if err != nil {
				l.violate("passing a connection on: %v", err)
			}
			l.add("tcp passed on", 1)
			continue
		}
		own := new(Ledger)
		ledgers = append(ledgers, own)
		wg.Go(func() { serve(c, false, rand.New(rand.NewPCG(s.Seed, number)), own) })
	}
	wg.Wait()
	for _, own := range ledgers {
		l.merge(own)
	}
}

// serve serves one connection. Those who dial reset some.
func serve(c *sockmeta.TCPConn, adopted bool, rng *rand.Rand, l *Ledger) {
	defer c.Close()
	l.add("tcp accepted", 1)
	st := stream{conn: c, adopted: adopted, rng: rng, ledger: l}
	err := st.serve()
	switch {
	case errors.Is(err, unix.ECONNRESET):
		l.add("tcp accepted and reset", 1)
	case err != nil:
		l.violate("tcp from %v: %v", c.RemoteAddr(), err)
	}
}

// stream reads one connection. Where in it the reader is follows from the sequence
// number that the producer gave the SYN.
type stream struct {
	conn    *sockmeta.TCPConn
	adopted bool // another process accepted it
	rng     *rand.Rand
	ledger  *Ledger

	known  bool   // unread is
	unread uint32 // sequence number of the byte in front of the first
	bytes  uint64
}

func (s *stream) serve() error {
	if err := s.conn.SetDeadline(time.Now().Add(tcpPatience)); err != nil {
		return err
	}
	if err := s.begin(); err != nil {
		return err
	}
	b := make([]byte, 6000)
	for {
		if s.rng.IntN(16) == 0 {
			if err := s.peek(b); err != nil {
				return err
			}
		}
		n, err := s.conn.Read(b[:1+s.rng.IntN(len(b))])
		if n > 0 {
			if at := wrongByte(b[:n], s.bytes); at >= 0 {
				return fmt.Errorf("wrong byte %d", s.bytes+uint64(at))
			}
			s.bytes += uint64(n)
			if err := s.check(); err != nil {
				return fmt.Errorf("after %d bytes: %w", s.bytes, err)
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if s.rng.IntN(256) == 0 {
			time.Sleep(time.Duration(s.rng.IntN(3 * int(time.Millisecond))))
		}
	}
	_, err := s.conn.Write(binary.BigEndian.AppendUint64(nil, s.bytes))
	return err
}

// begin looks where the sequence numbers begin. Without a producer nobody knows.
func (s *stream) begin() error {
	md, err := s.conn.OpeningMetadata()
	if err != nil {
		return s.lost("tcp opening", err)
	}
	s.unread, s.known = md.Uint32(testprog.KeySeq)
	if !s.known {
		s.ledger.add("tcp opening without area", 1)
		return nil
	}
	if md.Flags().Has(cmsg.FlagHandshakeAck) {
		// The SYN took a number.
		s.unread--
	}
	s.ledger.add("tcp opening", 1)
	return nil
}

// peek looks at what waits, which does not make it the last that was read.
func (s *stream) peek(b []byte) error {
	err := withFD(s.conn, func(fd int) error {
		n, _, err := unix.Recvfrom(fd, b, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if err != nil || n <= 0 {
			return err
		}
		if at := wrongByte(b[:n], s.bytes); at >= 0 {
			return fmt.Errorf("peeked: wrong byte %d", s.bytes+uint64(at))
		}
		s.ledger.add("tcp peeked", 1)
		return nil
	})
	if errors.Is(err, unix.EAGAIN) || err == nil && s.bytes == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	return s.check()
}

func (s *stream) check() error {
	md, err := s.conn.Metadata()
	if err != nil {
		return s.lost("tcp", err)
	}
	seq, ok := md.Uint32(testprog.KeySeq)
	length, _ := md.Uint32(testprog.KeyLen)
	switch {
	case !ok:
		s.ledger.add("tcp without area", 1)
	case !s.known:
		s.ledger.add("tcp not compared", 1)
	case s.unread+uint32(s.bytes)-seq >= length:
		return fmt.Errorf("the last byte has number %d, and the metadata is %v", s.unread+uint32(s.bytes), &md)
	default:
		s.ledger.add("tcp matched", 1)
	}
	return nil
}

// lost counts what is reported lost.
func (s *stream) lost(what string, err error) error {
	switch {
	case errors.Is(err, sockmeta.ErrOverrun):
		s.ledger.add(what+" lost: overrun", 1)
	case !errors.Is(err, sockmeta.ErrNotSupported) && !errors.Is(err, sockmeta.ErrNoMetadata):
		return err
	case (s.adopted || errors.Is(err, sockmeta.ErrNotSupported)) && s.isClosed():
		// Then nobody had accepted it when it ended: docs/security.md, Memory. Who is
		// given such a connection opts in anew.
		s.ledger.add(what+" lost: ended before it was accepted", 1)
	case errors.Is(err, sockmeta.ErrNoMetadata):
		s.ledger.add(what+" lost: no record", 1)
	default:
		s.ledger.add(what+" lost: not supported", 1)
	}
	return nil
}

// isClosed says whether the connection has ended on both sides.
func (s *stream) isClosed() bool {
	const tcpClose = 7 // include/net/tcp_states.h
	rc, err := s.conn.SyscallConn()
	if err != nil {
		return false
	}
	var info *unix.TCPInfo
	cerr := rc.Control(func(fd uintptr) {
		info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	})
	return cerr == nil && err == nil && info.State == tcpClose
}

// streamByte is the byte at a place in every connection.
func streamByte(at uint64) byte { return byte(at ^ at>>8 ^ at>>16) }

// wrongByte returns the index of the first byte that does not belong there, or -1.
func wrongByte(b []byte, at uint64) int {
	for i := range b {
		if b[i] != streamByte(at+uint64(i)) {
			return i
		}
	}
	return -1
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"time"

	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// A server reads one connection to its end, and asks for metadata all the while.
type server struct {
	wire *wire
	plan *connection
	rng  *rand.Rand
	// fixed has all reads be as long as the plan says.
	fixed bool

	stream  []byte
	answers []answer
}

// lateAfter is within how many bytes a connection opts in that did not before.
const lateAfter = 5000

// serve reads to the end. It returns errors other than those of metadata.
func (s *server) serve(c *sockmeta.TCPConn) error {
	if err := s.ask(c, ofOpening); err != nil {
		return err
	}
	buf := make([]byte, choose(readSizes[:], s.plan.read))
	pause := choose(pauses[:], s.plan.pause)
	asked := 0
	for {
		if s.rng.IntN(256) < pause {
			s.pause()
		}
		b := buf
		if !s.fixed {
			b = buf[:1+s.rng.IntN(len(buf))]
		}
		n, err := c.Read(b)
		s.stream = append(s.stream, b[:n]...)
		if n > 0 || err == io.EOF {
			if err := s.ask(c, ofRead); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return s.ask(c, ofOpening)
		}
		if err != nil {
			return err
		}
		if asked++; asked%4 == 0 {
			if err := s.ask(c, ofLatest); err != nil {
				return err
			}
		}
		// It is the server that closes first.
		if s.plan.mode == reused && len(s.stream) == s.plan.share() {
			return nil
		}
	}
}

// pause is for segments to wait for the reader, and for the window to close.
func (s *server) pause() {
	d := time.Duration(s.rng.IntN(int(3 * time.Millisecond)))
	if s.rng.IntN(16) == 0 {
		d = 40 * time.Millisecond
	}
	time.Sleep(d)
}

func (s *server) ask(c *sockmeta.TCPConn, q question) error {
	get := c.Metadata
	switch q {
	case ofOpening:
		get = c.OpeningMetadata
	case ofLatest:
		get = c.LatestMetadata
	}
	md, err := get()
	a, err := toAnswer(q, &md, err)
	if err != nil {
		return fmt.Errorf("%v: %w", q, err)
	}
	a.read = int32(len(s.stream))
	if q == ofLatest {
		a.after = s.wire.last()
	}
	s.answers = append(s.answers, a)
	return nil
}

// optInLate reads the beginning of a connection that has not opted in, and opts it
// in.
func (s *server) optInLate(c *net.TCPConn) (*sockmeta.TCPConn, error) {
	b := make([]byte, 1+s.rng.IntN(min(lateAfter, s.plan.share())))
	n, err := io.ReadFull(c, b)
	s.stream = append(s.stream, b[:n]...)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	if s.rng.IntN(2) == 0 {
		s.pause()
	}
	return sockmeta.WrapTCP(c), nil
}

// judge weighs the answers.
func (s *server) judge(f *flow, setting setting, saved uint32, t *tally, where string) {
	j := newJudge(s.wire, f, s.stream, setting)
	var newest uint32
	var buf [32]match
	for i := range s.answers {
		a := &s.answers[i]
		var o outcome
		var why string
		switch a.question {
		case ofRead:
			if a.read > 0 {
				id, _, _ := j.truth(int(a.read)-1, buf[:0])
				newest = max(newest, id)
			}
			o, why = j.read(a)
		case ofLatest:
			o, why = j.latest(a, newest)
		case ofOpening:
			o, why = j.opening(a, saved)
		}
		if s.plan.mode == multipath && o != notSupported && a.failed != notSupported {
			o, why = wrong, "a Multipath TCP connection has no metadata"
		}
		t.add(a, o, where, why)
	}
	t.carried(s.plan.mode, len(s.stream))
	if len(s.stream) != s.plan.share() {
		t.trouble(where, fmt.Errorf("read %d bytes of %d", len(s.stream), s.plan.share()))
	}
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/testprog"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// sending is by what calls a sender sends.
type sending int

const (
	asMetadata sending = iota // WriteMetadata, and now and then without
	asMessage                 // metadata in a control message, likewise
	asPlain                   // a socket of package net
	sendings

	asTrain = sendings // a plain socket's, many datagrams by one call (UDP_SEGMENT)
)

// sender sends datagrams that begin with an id that no other has. It is in the
// metadata, too, or bit 63 is set in it.
type sender struct {
	Task
	conn  *sockmeta.UDPConn
	plain *net.UDPConn
	to    netip.AddrPort
	rng   *rand.Rand
	id    uint64
	sent  atomic.Int64
	sum   atomic.Uint64
}

func (s *sender) serves() bool { return false }

func (s *sender) open() (err error) {
	s.rng = rand.New(rand.NewPCG(s.Seed, 0))
	s.id = s.Number << numberShift
	local := net.UDPAddrFromAddrPort(s.Local)
	// net takes a socket from elsewhere for one that is not connected.
	if !s.Connected || s.Handover == take {
		s.to = s.Remote
	}
	switch {
	case s.Handover == take:
		s.conn, err = takeSocket()
	case s.As >= asPlain && s.Connected:
		s.plain, err = net.DialUDP(s.Network, local, net.UDPAddrFromAddrPort(s.Remote))
	case s.As >= asPlain:
		s.plain, err = net.ListenUDP(s.Network, local)
	case s.Connected:
		s.conn, err = sockmeta.DialUDP(s.Network, local, net.UDPAddrFromAddrPort(s.Remote))
	default:
		s.conn, err = sockmeta.ListenUDP(s.Network, local)
	}
	if err == nil && s.Handover == give {
		err = giveSocket(s.conn)
	}
	return err
}

func (s *sender) close() {
	if s.conn != nil {
		_ = s.conn.Close()
	} else if s.plain != nil {
		_ = s.plain.Close()
	}
}

func (s *sender) progress(l *Ledger) {
	l.flow(s.Flow, Flow{Sent: int(s.sent.Load()), Sum: s.sum.Load()})
}

// The most datagrams that are sent without a pause, and in one call.
const (
	maxBurst = 64
	maxTrain = 16
)

// act sends bursts, so that the reader now keeps up and now does not.
func (s *sender) act(l *Ledger) {
	b := make([]byte, maxTrain*maxPayload)
	for end := time.Now().Add(s.For); time.Now().Before(end); {
		for range 1 + s.rng.IntN(maxBurst) {
			n, err := s.send(b, l)
			if err != nil {
				l.violate("sending to flow %d: %v", s.Flow, err)
				return
			}
			s.sent.Add(int64(n))
		}
		if s.conn != nil && s.rng.IntN(32) == 0 {
			s.conn = sockmeta.WrapUDP(s.conn.NetConn().(*net.UDPConn))
			l.add("udp sockets wrapped anew", 1)
		}
		time.Sleep(time.Duration(s.rng.IntN(2 * int(time.Millisecond))))
	}
}

// send returns how many datagrams it sent.
func (s *sender) send(b []byte, l *Ledger) (int, error) {
	b = b[:minPayload+s.rng.IntN(maxPayload-minPayload+1)]
	s.id++
	switch {
	case s.As == asTrain:
		return s.train(b[:cap(b)], l)
	case s.As == asPlain || s.rng.IntN(8) == 0:
		s.fill(b, s.id|noMetadata)
		l.add("udp sent without metadata", 1)
		return 1, s.without(b)
	}
	s.fill(b, s.id)
	var md sockmeta.Metadata
	if err := s.describe(&md); err != nil {
		return 0, err
	}
	var err error
	if s.As == asMessage {
		var oob [cmsg.MetadataSpace]byte
		_, _, err = s.conn.WriteMsgUDPAddrPort(b, md.AppendCmsg(oob[:0]), s.to)
	} else {
		_, err = s.conn.WriteMetadata(b, &md, s.to)
	}
	switch {
	case err == nil:
		l.add("udp sent with metadata", 1)
	case errors.Is(err, sockmeta.ErrNotSupported):
		l.add("udp sent, metadata lost: not supported", 1)
	case errors.Is(err, sockmeta.ErrOverrun):
		l.add("udp sent, metadata lost: overrun", 1)
	default:
		return 0, err
	}
	return 1, nil
}

func (s *sender) fill(b []byte, id uint64) {
	fillPayload(b, id)
	s.sum.Add(payloadSum(b))
}

// describe puts the id into metadata, and at times more, so that records differ in
// length.
func (s *sender) describe(md *sockmeta.Metadata) error {
	if s.rng.IntN(4) == 0 {
		md.SetPriority(uint32(s.rng.IntN(7)))
	}
	if err := md.SetUint64(testprog.KeyID, s.id); err != nil {
		return err
	}
	if s.rng.IntN(4) == 0 {
		return md.SetBytes(testprog.KeyFiller, make([]byte, 1+s.rng.IntN(200)))
	}
	return nil
}

func (s *sender) without(b []byte) (err error) {
	switch {
	case s.plain != nil && s.Connected:
		_, err = s.plain.Write(b)
	case s.plain != nil:
		_, err = s.plain.WriteToUDPAddrPort(b, s.to)
	case s.Connected:
		_, err = s.conn.Write(b)
	default:
		_, err = s.conn.WriteToUDPAddrPort(b, s.to)
	}
	return err
}

// train sends datagrams of one size, each with an id of its own.
func (s *sender) train(b []byte, l *Ledger) (int, error) {
	const segment = 128
	n := 2 + s.rng.IntN(maxTrain-1)
	for i := range n {
		s.fill(b[i*segment:(i+1)*segment], s.id|noMetadata)
		s.id++
	}
	oob := cmsg.Append(nil, unix.SOL_UDP, unix.UDP_SEGMENT, binary.NativeEndian.AppendUint16(nil, segment))
	_, _, err := s.plain.WriteMsgUDPAddrPort(b[:n*segment], oob, s.to)
	l.add("udp sent in trains", n)
	l.add("udp trains", 1)
	return n, err
}

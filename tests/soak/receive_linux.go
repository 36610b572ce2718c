// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// reading is by what calls a receiver gets its metadata.
type reading int

const (
	byMetadata reading = iota // ReadMetadata
	byMessage                 // ReadMsgUDPAddrPort, SetMetadataMessage
	byPeeking                 // MSG_PEEK, then ReadMetadata
	readings
)

// receiver reads what comes to the sockets of a flow, and compares each payload's
// id with the metadata's.
type receiver struct {
	Task
	conns    []*sockmeta.UDPConn
	received atomic.Int64
	sum      atomic.Uint64
}

func (r *receiver) serves() bool { return true }

func (r *receiver) open() error {
	for range r.Sockets {
		c, err := r.socket()
		if err != nil {
			return err
		}
		r.conns = append(r.conns, c)
		if r.Handover == take {
			return nil
		}
		if err := c.SetReadBuffer(r.Buffer); err != nil {
			return err
		}
		if r.GRO {
			if err := setOption(c, unix.SOL_UDP, unix.UDP_GRO, 1); err != nil {
				return err
			}
		}
	}
	if r.Handover == give {
		return giveSocket(r.conns[0])
	}
	return nil
}

func (r *receiver) socket() (*sockmeta.UDPConn, error) {
	switch {
	case r.Handover == take:
		return takeSocket()
	case r.Connected:
		return sockmeta.DialUDP(r.Network, net.UDPAddrFromAddrPort(r.Local), net.UDPAddrFromAddrPort(r.Remote))
	case r.Sockets == 1:
		return sockmeta.ListenUDP(r.Network, net.UDPAddrFromAddrPort(r.Local))
	}
	lc := sockmeta.ListenConfig{ListenConfig: net.ListenConfig{Control: reusePort}}
	c, err := lc.ListenPacket(context.Background(), r.Network, r.Local.String())
	if err != nil {
		return nil, err
	}
	return c.(*sockmeta.UDPConn), nil
}

func (r *receiver) close() {
	for _, c := range r.conns {
		_ = c.Close()
	}
}

// progress leaves the drops of a socket that it took to its giver.
func (r *receiver) progress(l *Ledger) {
	f := Flow{Received: int(r.received.Load()), Sum: -r.sum.Load()}
	for _, c := range r.conns {
		if r.Handover == take {
			break
		}
		n, err := socketDrops(c)
		if err != nil {
			l.violate("drops of flow %d: %v", r.Flow, err)
		}
		f.Dropped += n
	}
	l.flow(r.Flow, f)
}

func (r *receiver) act(l *Ledger) {
	ledgers := make([]Ledger, len(r.conns))
	var wg sync.WaitGroup
	for i, c := range r.conns {
		wg.Go(func() { r.read(c, uint64(i), &ledgers[i]) })
	}
	wg.Wait()
	for i := range ledgers {
		l.merge(&ledgers[i])
	}
}

// maxAggregate holds a train of segments that GRO made one.
const maxAggregate = 1 << 16

// read reads until the socket is closed. At times it rests, so that datagrams wait
// while others take their slots.
func (r *receiver) read(c *sockmeta.UDPConn, number uint64, l *Ledger) {
	rng := rand.New(rand.NewPCG(r.Seed, number))
	b := make([]byte, maxAggregate)
	oob := make([]byte, cmsg.MetadataSpace+64)
	r.prepare(c, l)
	var md sockmeta.Metadata
	for {
		var n, segment int
		var err error
		switch {
		case r.byMessages():
			n, segment, err = r.readMessage(c, b, oob, &md)
		case r.How == byPeeking && rng.IntN(4) == 0:
			r.peek(c, oob, l)
			fallthrough
		default:
			n, _, err = c.ReadMetadata(b, &md)
		}
		if err != nil && !sockmeta.IsMetadataError(err) {
			if !errors.Is(err, net.ErrClosed) {
				l.violate("reading flow %d: %v", r.Flow, err)
			}
			return
		}
		datagrams := 0
		for rest := b[:n]; len(rest) > 0; datagrams++ {
			payload := rest
			if segment != 0 {
				payload = rest[:min(segment, len(rest))]
			}
			rest = rest[len(payload):]
			if !wholePayload(payload) {
				l.violate("flow %d: a datagram of %d bytes that nobody sent: % x", r.Flow, len(payload), payload[:min(len(payload), 16)])
				return
			}
			r.sum.Add(payloadSum(payload))
		}
		if segment != 0 {
			l.add("udp received in aggregates", datagrams)
		}
		compare(l, "udp", b[:n], &md, err, r.GRO)
		if err == nil && rng.IntN(64) == 0 {
			md, err := c.Metadata()
			compare(l, "udp again", b[:n], &md, err, r.GRO)
		}
		r.received.Add(int64(datagrams))
		switch rng.IntN(2048) {
		case 0, 1:
			time.Sleep(time.Duration(rng.IntN(3 * int(time.Millisecond))))
		case 2:
			// To whoever is attached now.
			c = sockmeta.WrapUDP(c.NetConn().(*net.UDPConn))
			r.prepare(c, l)
			l.add("udp sockets wrapped anew", 1)
		}
	}
}

// byMessages says whether metadata is to come in control messages, as do the sizes
// of segments.
func (r *receiver) byMessages() bool { return r.GRO || r.How == byMessage }

// prepare is for each new wrapper.
func (r *receiver) prepare(c *sockmeta.UDPConn, l *Ledger) {
	if !r.byMessages() {
		return
	}
	if err := c.SetMetadataMessage(true); err != nil && !errors.Is(err, sockmeta.ErrNotSupported) {
		l.violate("SetMetadataMessage: %v", err)
	}
}

// readMessage reads a datagram, or an aggregate of segments of a size.
func (r *receiver) readMessage(c *sockmeta.UDPConn, b, oob []byte, md *sockmeta.Metadata) (n, segment int, err error) {
	n, oobn, _, _, err := c.ReadMsgUDPAddrPort(b, oob)
	if err != nil {
		return n, 0, err
	}
	if data, ok := cmsg.Find(oob[:oobn], unix.SOL_UDP, unix.UDP_GRO); ok && len(data) >= 4 {
		if segment = int(binary.NativeEndian.Uint32(data)); segment >= n {
			segment = 0
		}
	}
	found, err := cmsg.FindMetadata(oob[:oobn], md)
	if err != nil || found {
		return n, segment, err
	}
	// A message that is missing does not say why. With two processes the last
	// read is another's, too.
	md.Reset()
	if r.Handover == keep {
		if _, err = c.Metadata(); err == nil {
			err = errors.New("no control message, and there is a record")
		}
		return n, segment, err
	}
	return n, segment, errUntold
}

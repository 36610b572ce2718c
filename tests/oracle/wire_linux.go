// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/internal/netlab"
)

// A wire carries frames between the client's link and the server's, and does to
// those for the server what the plans of their connections say.
type wire struct {
	client, server *port
	wake           int // eventfd
	stopped        chan struct{}

	// mu guards what follows: all but the kernel's part of a turn has it.
	mu     sync.Mutex
	end    bool
	now    int64 // of this turn, ns
	routes map[uint16]*connection
	flows  map[uint32]*flow // by both ports
	all    []*flow
	frames []frame
	held   []held
	// merging is whether a segment waits for the next one.
	merging int
	// datagram is where one is put together that goes out in fragments.
	datagram [1 << 16]byte
	pieces   []int
}

// held is a packet that goes out later: at a time, or when so many of the flow's
// have passed.
type held struct {
	flow   *flow
	packet packet
	kind   kind
	due    int64
	count  int
}

func newWire(ns *netlab.Namespace, clientSide, serverSide string, client, server [6]byte) (w *wire, err error) {
	w = &wire{
		wake: -1, stopped: make(chan struct{}),
		routes: make(map[uint16]*connection), flows: make(map[uint32]*flow),
		// No frame has the number 0.
		frames: make([]frame, 1),
	}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if w.client, err = openPort(ns, clientSide); err != nil {
		return nil, fmt.Errorf("%s: %w", clientSide, err)
	}
	if w.server, err = openPort(ns, serverSide); err != nil {
		return nil, fmt.Errorf("%s: %w", serverSide, err)
	}
	w.client.to, w.server.to = client, server
	if w.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	go w.run()
	return w, nil
}

func (w *wire) close() {
	if w.wake >= 0 {
		w.mu.Lock()
		w.end = true
		w.mu.Unlock()
		_, _ = unix.Write(w.wake, binary.NativeEndian.AppendUint64(nil, 1))
		<-w.stopped
		_ = unix.Close(w.wake)
	}
	for _, p := range []*port{w.client, w.server} {
		if p != nil {
			p.close()
		}
	}
}

// expect names the connection of a port, on whichever side that is.
func (w *wire) expect(port uint16, c *connection) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.routes[port] = c
}

// forget drops all that there was, and numbers frames from the beginning.
func (w *wire) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.routes)
	clear(w.flows)
	w.all, w.held, w.frames = nil, nil, make([]frame, 1)
}

// find returns the newest flow between two ports.
func (w *wire) find(clientPort, serverPort uint16) *flow {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.flows[uint32(clientPort)<<16|uint32(serverPort)]
}

// last returns the number of the newest frame.
func (w *wire) last() uint32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return uint32(len(w.frames) - 1)
}

func (w *wire) run() {
	defer close(w.stopped)
	begin := time.Now()
	fds := []unix.PollFd{
		{Fd: int32(w.wake), Events: unix.POLLIN},
		{Fd: int32(w.client.fd), Events: unix.POLLIN},
		{Fd: int32(w.server.fd), Events: unix.POLLIN},
	}
	for {
		w.mu.Lock()
		w.now = int64(time.Since(begin))
		more := w.client.receive(w.fromClient)
		more = w.server.receive(w.fromServer) || more
		w.release()
		w.server.flush()
		w.client.flush()
		wait := -1
		if len(w.held)+w.merging > 0 {
			wait = 1
		}
		end := w.end
		w.mu.Unlock()
		if end {
			return
		}
		if !more {
			_, _ = unix.Poll(fds, wait)
		}
	}
}

// flow returns that of a packet, nil where nobody planned it. A SYN of another
// number begins another.
func (w *wire) flow(p *packet, clientPort, serverPort uint16, fromClient bool) *flow {
	key := uint32(clientPort)<<16 | uint32(serverPort)
	f := w.flows[key]
	opens := !p.udp && p.has(syn) && fromClient
	if f != nil && (!opens || !f.haveISN || f.isn == p.seq()) {
		return f
	}
	c := w.routes[serverPort]
	if c == nil {
		c = w.routes[clientPort]
	}
	if c == nil || f == nil && !p.udp && !p.has(syn) {
		return nil
	}
	f = &flow{
		number: int32(len(w.all)), conn: c, rng: rand.New(rand.NewPCG(c.seed, uint64(len(w.all)))),
		clientPort: clientPort, serverPort: serverPort, born: w.now, progress: w.now, groupSize: choose(groupSizes[:], c.group),
	}
	w.flows[key] = f
	w.all = append(w.all, f)
	return f
}

func (w *wire) fromClient(b []byte, segment int) {
	var p packet
	if !p.parse(b[etherSize:]) {
		return
	}
	f := w.flow(&p, p.source(), p.dest(), true)
	switch {
	case f == nil:
	case p.udp:
		w.tamperUDP(f, &p)
	case p.has(syn):
		w.greet(f, &p)
	default:
		w.fromClientTCP(f, &p, segment)
	}
}

// fromClientTCP cuts what the client left to segmentation offload into segments,
// and what does not fit into the server's MTU: the client's is larger, and before
// it knows the server's MSS it may use that.
func (w *wire) fromClientTCP(f *flow, p *packet, segment int) {
	if !f.haveISN {
		return
	}
	if before(f.sent, p.next()) {
		f.sent = p.next()
	}
	if segment == 0 {
		segment = p.payload
	}
	segment = min(segment, p.mostPayload())
	for at := 0; ; at += segment {
		piece := p.piece(at, min(segment, p.payload-at))
		if f.greeted || w.endGreeting(f, &piece) {
			w.tamper(f, &piece)
		}
		if at+segment >= p.payload {
			return
		}
	}
}

// piece returns a part of a segment. What marks the end is of the last one.
func (p *packet) piece(at, size int) packet {
	piece := *p
	piece.setSeq(p.seq() + uint32(at))
	piece.payload = size
	if at+size < p.payload {
		piece.setFlags(p.flags() &^ (fin | psh))
	}
	return piece
}

func (w *wire) fromServer(b []byte, _ int) {
	var p packet
	if !p.parse(b[etherSize:]) {
		return
	}
	f := w.flow(&p, p.dest(), p.source(), false)
	if f == nil {
		return
	}
	if p.udp {
		w.toClient(&p)
		return
	}
	// What the wire made up may have provoked it; the client is to live on.
	if p.has(rst) {
		return
	}
	if p.has(ack) {
		if !f.haveAcked || before(f.acked, p.ack()) {
			f.acked, f.haveAcked = p.ack(), true
		}
		// It may acknowledge what the wire sent ahead of the client.
		if f.haveISN && before(f.sent, p.ack()) {
			p.setAck(f.sent)
		}
	}
	switch {
	case p.has(syn) && !p.has(ack):
		if f.conn.mode == crossed && !f.crossed {
			f.serverSYN = new(packet)
			*f.serverSYN = p
			w.cross(f)
			return
		}
	case p.has(syn):
		if f.skipACKs > 0 {
			f.skipACKs--
			return
		}
	case p.payload == 0 && !p.has(fin) && f.troubled(w.now):
		if f.loseACKs > 0 {
			f.loseACKs--
			return
		}
		if f.rng.IntN(256) < int(f.conn.acks) {
			return
		}
	}
	if p.has(ack) && f.told != p.ack() {
		f.told, f.progress = p.ack(), w.now
	}
	w.toClient(&p)
}

func (w *wire) toClient(p *packet) {
	n := p.frame(w.client.slot(), w.client.to, 0, func(payload []byte) { clear(payload) })
	w.client.queue(n)
}

// toServer sends a frame with bytes of its own.
func (w *wire) toServer(f *flow, p *packet, k kind) uint32 {
	id := uint32(len(w.frames))
	at := p.start()
	off := f.offset(at)
	tag := w.tag(f, id, k)
	w.frames = append(w.frames, frame{flow: f.number, off: off, size: int32(p.payload), tag: tag, kind: k})
	if p.payload > 0 {
		f.data = append(f.data, id)
	}
	n := p.frame(w.server.slot(), w.server.to, tag, func(payload []byte) { fillContent(payload, id, uint32(off)) })
	w.server.queue(n)
	return id
}

// hold sends a packet when so many others have passed.
func (w *wire) hold(f *flow, p *packet, k kind, count int) {
	w.held = append(w.held, held{flow: f, packet: *p, kind: k, due: w.now + int64(patience), count: f.count + count})
}

// delay sends a packet later.
func (w *wire) delay(f *flow, p *packet, k kind, d time.Duration) {
	w.held = append(w.held, held{flow: f, packet: *p, kind: k, due: w.now + int64(d), count: math.MaxInt})
}

// patience is how long a packet waits for others to pass, or to come.
const patience = 3 * time.Millisecond

// release sends what has waited for long enough.
func (w *wire) release() {
	w.merging = 0
	for _, f := range w.all {
		if f.mergeLeft > 0 && f.mergeDue <= w.now {
			w.endMerge(f)
		}
		w.merging += f.mergeLeft
	}
	kept := w.held[:0]
	for i := range w.held {
		h := &w.held[i]
		if h.due > w.now && h.flow.count < h.count {
			kept = append(kept, *h)
			continue
		}
		if h.packet.udp {
			w.datagramToServer(h.flow, &h.packet, h.kind, 0)
		} else {
			w.toServer(h.flow, &h.packet, h.kind)
		}
	}
	w.held = kept
}

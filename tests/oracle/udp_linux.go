// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// longestDatagram is what the client's link takes.
const longestDatagram = 20_000

// quiet is how long nothing may come, when all has been sent, before it is over.
const quiet = 60 * time.Millisecond

// runUDP sends datagrams to a socket of the server.
func (k *task) runUDP() error {
	_, addr := k.addrs()
	segments := sockmeta.SegmentsOff
	if k.plan.mode == trains {
		segments = sockmeta.SegmentsSplit
	}
	var c *sockmeta.UDPConn
	err := k.lab.server.Do(func() error {
		lc := sockmeta.ListenConfig{Require: true, GRO: segments}
		lc.Control = k.control(option{unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4 << 20})
		p, err := lc.ListenPacket(context.Background(), "udp", addr.String())
		if err == nil {
			c = p.(*sockmeta.UDPConn)
		}
		return err
	})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetReadDeadline(k.expiry); err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() {
		sent <- k.sendDatagrams(addr.String())
		_ = c.SetReadDeadline(time.Now().Add(quiet))
	}()
	r := &datagramReader{task: k, conn: c, rng: rand.New(rand.NewPCG(k.plan.seed, 200))}
	if k.plan.seed%3 == 0 {
		err = r.readEach()
	} else {
		err = r.readBatches()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	err = errors.Join(err, <-sent)
	k.tally.carried(k.plan.mode, r.bytes)
	return err
}

func (k *task) sendDatagrams(to string) error {
	rng := rand.New(rand.NewPCG(k.plan.seed, 300))
	var c net.Conn
	err := k.lab.client.Do(func() (err error) {
		c, err = net.Dial("udp", to)
		return err
	})
	if err != nil {
		return err
	}
	defer c.Close()
	most := min(max(2*datagramIDSize, choose(writeSizes[:], k.plan.write)), longestDatagram)
	size := most
	for left := int(k.plan.total); left > 0; left -= size {
		// Trains are of datagrams of one size.
		if k.plan.mode == datagrams || rng.IntN(40) == 0 {
			size = 2*datagramIDSize + rng.IntN(most)
			size = min(size, longestDatagram)
			if k.plan.mode == trains {
				size = min(size, 1400)
			}
		}
		if _, err := c.Write(zeros[:size]); err != nil {
			return err
		}
		// Nothing holds a sender of datagrams back.
		if rng.IntN(1+40_000/size) == 0 {
			time.Sleep(200 * time.Microsecond)
		}
	}
	return nil
}

// A datagramReader reads and judges one by one: a datagram says itself which frame
// it came in.
type datagramReader struct {
	task  *task
	conn  *sockmeta.UDPConn
	rng   *rand.Rand
	bytes int
	want  []byte
}

func (r *datagramReader) readEach() error {
	b := make([]byte, longestDatagram+1)
	var md sockmeta.Metadata
	for {
		n, _, err := r.conn.ReadMetadata(b, &md)
		if err != nil && !sockmeta.IsMetadataError(err) {
			return err
		}
		if err := r.check(b[:n], &md, err); err != nil {
			return err
		}
		r.pause()
	}
}

func (r *datagramReader) readBatches() error {
	ms := make([]sockmeta.Message, 1+r.rng.IntN(40))
	for i := range ms {
		ms[i].Buf = make([]byte, longestDatagram+1)
	}
	for {
		n, err := r.conn.ReadBatchMetadata(ms, 0)
		if err != nil {
			return err
		}
		for i := range ms[:n] {
			m := &ms[i]
			if err := r.check(m.Buf[:m.N], &m.Metadata, m.Err); err != nil {
				return err
			}
		}
		r.pause()
	}
}

func (r *datagramReader) pause() {
	if r.rng.IntN(256) < choose(pauses[:], r.task.plan.pause) {
		time.Sleep(time.Duration(r.rng.IntN(int(time.Millisecond))))
	}
}

func (r *datagramReader) check(b []byte, md *sockmeta.Metadata, err error) error {
	t := r.task.tally
	r.bytes += len(b)
	a, err := toAnswer(ofDatagram, md, err)
	if err != nil {
		return err
	}
	a.read = int32(r.bytes)
	if len(b) < datagramIDSize {
		return fmt.Errorf("a datagram of %d bytes", len(b))
	}
	id := binary.LittleEndian.Uint32(b)
	f, ok := r.task.lab.wire.frame(id)
	if !ok || int(f.size) != len(b) {
		return fmt.Errorf("a datagram of %d bytes that says it is frame #%d", len(b), id)
	}
	if len(r.want) < len(b) {
		r.want = make([]byte, longestDatagram+1)
	}
	fillContent(r.want[:len(b)], id, 0)
	if !bytes.Equal(b[datagramIDSize:], r.want[datagramIDSize:len(b)]) {
		return fmt.Errorf("frame #%d came with other bytes", id)
	}
	if a.failed != wrong {
		t.add(&a, a.failed, r.task.where, "")
		return nil
	}
	t.add(&a, a.weigh(f.tag == a.tag), r.task.where,
		fmt.Sprintf("a datagram of frame #%d (%v, tagged %d) has the record of #%d", id, f.kind, f.tag, a.tag))
	return nil
}

// frame returns what the wire knows of a frame.
func (w *wire) frame(id uint32) (frame, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if id == 0 || int(id) >= len(w.frames) {
		return frame{}, false
	}
	return w.frames[id], true
}

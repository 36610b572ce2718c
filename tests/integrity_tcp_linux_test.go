// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf/link"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/testprog"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

const (
	streamPort    = 7100
	streamRecords = 20_000
	streamWrite   = 4000
	streamRead    = 6000
)

// TestIntegrityTCP has an XDP program copy each segment's sequence number and
// length into its metadata. Where in its connection the server has read to
// follows from the sequence number of the SYN, so after each Read the metadata
// is known to be of a segment that brought the last byte, or not.
//
// That holds for segments that were merged, too. Native XDP sees segments as
// they were on the wire, and GRO, which comes after it, leaves apart what
// differs in metadata (skb_metadata_differs in net/core/gro.c), as different
// sequence numbers do. Generic XDP comes after GRO and sees what that, or the
// sender's segmentation offload on a veth pair, made: one IP packet with one
// sequence number and the length of all, marked cmsg.FlagAggregate.
func TestIntegrityTCP(t *testing.T) {
	for _, mode := range xdpModes {
		t.Run(mode.name, func(t *testing.T) {
			testutil.Leaks(t)
			p := testutil.Pair(t)
			producer := attachEcho(t, p, "echo_tcp", mode.flag)
			cg := testutil.EnterCgroup(t)
			a, err := bpf.Attach(bpf.Options{Cgroup: cg.Path()})
			must(t, err)
			t.Cleanup(func() { _ = a.Close() })

			var l *sockmeta.TCPListener
			must(t, p.Server.Do(func() (err error) {
				l, err = sockmeta.ListenTCP("tcp", &net.TCPAddr{Port: streamPort})
				return err
			}))
			defer l.Close()
			must(t, l.SetDeadline(time.Now().Add(time.Minute)))

			records := testutil.Scale(streamRecords)
			var readers []*streamReader
			var wg sync.WaitGroup
			defer wg.Wait()
			for i, addr := range []netip.Addr{p.ServerAddr4, p.ServerAddr6, p.ServerAddr4, p.ServerAddr6} {
				var client net.Conn
				must(t, p.Client.Do(func() (err error) {
					client, err = net.Dial("tcp", netip.AddrPortFrom(addr, streamPort).String())
					return err
				}))
				defer client.Close()
				server, err := l.AcceptTCP()
				must(t, err)
				must(t, server.SetDeadline(time.Now().Add(2*time.Minute)))
				r := &streamReader{conn: server, rng: rand.New(rand.NewPCG(3, uint64(i)))}
				readers = append(readers, r)
				wg.Go(func() { r.sent, r.sendErr = sendStream(client, i, records) })
				wg.Go(func() {
					r.err = r.read()
					// Or the sender would wait for ever after an error.
					_ = server.Close()
				})
			}
			wg.Wait()

			var sum streamCounts
			for i, r := range readers {
				t.Logf("connection %d: sent %d, %+v", i, r.sent, r.streamCounts)
				must(t, errors.Join(r.err, r.sendErr))
				if r.read64 != r.sent {
					t.Errorf("connection %d: read %d bytes of %d", i, r.read64, r.sent)
				}
				sum.Matched += r.Matched
				sum.Overrun += r.Overrun
				sum.Aggregates += r.Aggregates
			}
			if sum.Matched == 0 {
				t.Errorf("lost the metadata of all %d reads: nothing was put to the test", sum.Overrun)
			}
			if mode.flag == link.XDPDriverMode && sum.Aggregates != 0 {
				t.Errorf("GRO merged %d segments with different metadata", sum.Aggregates)
			}
			producer.verify(t)
		})
	}
}

func sendStream(c net.Conn, number, records int) (sent uint64, err error) {
	rng := rand.New(rand.NewPCG(4, uint64(number)))
	b := make([]byte, streamWrite)
	for range records {
		n, err := c.Write(b[:1+rng.IntN(len(b))])
		sent += uint64(n)
		if err != nil {
			return sent, err
		}
		// Without pauses the reader would always be behind.
		if rng.IntN(8) == 0 {
			time.Sleep(time.Duration(rng.IntN(int(time.Millisecond))))
		}
	}
	return sent, c.(*net.TCPConn).CloseWrite()
}

// streamCounts says of how many reads the metadata was right, or lost.
type streamCounts struct {
	Matched, Overrun, Repeated, Aggregates int
}

// streamReader reads one connection to its end.
type streamReader struct {
	streamCounts
	conn   *sockmeta.TCPConn
	rng    *rand.Rand
	unread uint32 // sequence number of the byte in front of the first
	read64 uint64 // bytes read

	err     error
	sent    uint64
	sendErr error
}

func (r *streamReader) read() error {
	md, err := r.conn.OpeningMetadata()
	if err != nil {
		return err
	}
	isn, ok := md.Uint32(testprog.KeySeq)
	if !ok || md.Flags() != 0 {
		return fmt.Errorf("opening metadata: %v", &md)
	}
	// The SYN takes a sequence number.
	r.unread = isn
	// So that segments wait.
	time.Sleep(50 * time.Millisecond)
	b := make([]byte, streamRead)
	for {
		n, err := r.conn.Read(b[:1+r.rng.IntN(len(b))])
		r.read64 += uint64(n)
		if n == 0 && err != io.EOF {
			return err
		}
		if err := r.check(); err != nil {
			return fmt.Errorf("after %d bytes: %w", r.read64, err)
		}
		if err == io.EOF {
			return nil
		}
		switch what := r.rng.IntN(256); {
		case what == 0:
			time.Sleep(time.Duration(r.rng.IntN(3 * int(time.Millisecond))))
		case what < 16:
			// Once in a while this meets a program that is writing the cell.
			lost := r.Overrun
			for end := time.Now().Add(time.Millisecond); r.Overrun == lost && time.Now().Before(end); {
				if err := r.check(); err != nil {
					return fmt.Errorf("after %d bytes, again: %w", r.read64, err)
				}
			}
		}
	}
}

func (r *streamReader) check() error {
	md, err := r.conn.Metadata()
	if errors.Is(err, sockmeta.ErrOverrun) {
		r.Overrun++
		return nil
	}
	if err != nil {
		return err
	}
	last := r.unread + uint32(r.read64)
	seq, hasSeq := md.Uint32(testprog.KeySeq)
	length, hasLen := md.Uint32(testprog.KeyLen)
	// Sequence numbers wrap.
	if !hasSeq || !hasLen || last-seq >= length {
		return fmt.Errorf("last byte has number %d, and the metadata is %v", last, &md)
	}
	r.Matched++
	if md.Flags().Has(cmsg.FlagRepeated) {
		r.Repeated++
	}
	if md.Flags().Has(cmsg.FlagAggregate) {
		r.Aggregates++
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/internal/testprog"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// tcpTxLab is a txLab with a plain server, that each test has its own ports of.
type tcpTxLab struct {
	*txLab
	t *testing.T
}

func newTCPTxLab(t *testing.T, policy bpf.Policy, change func(*ebpf.CollectionSpec)) *tcpTxLab {
	t.Helper()
	return &tcpTxLab{newWatchedLab(t, policy, true, change), t}
}

// expectOn says what the packets that leave for a port should have.
func (lab *tcpTxLab) expectOn(port uint16, id uint64) {
	lab.t.Helper()
	must(lab.t, lab.wire.Connections.Put(port, id))
}

// metadata returns metadata with an id of its own, and the id.
func (lab *tcpTxLab) metadata() (*sockmeta.Metadata, uint64) {
	lab.t.Helper()
	b, md := lab.datagram(lab.t)
	return md, binary.NativeEndian.Uint64(b)
}

// listen is a server that hands each connection to serve and closes it then.
func (lab *tcpTxLab) listen(port int, serve func(net.Conn)) {
	lab.t.Helper()
	var l net.Listener
	must(lab.t, lab.Server.Do(func() (err error) {
		l, err = net.Listen("tcp", ":"+strconv.Itoa(port))
		return err
	}))
	var wg sync.WaitGroup
	lab.t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(time.Minute))
				serve(c)
			})
		}
	})
}

func echoAll(c net.Conn) { _, _ = io.Copy(c, c) }

func (lab *tcpTxLab) dial(d sockmeta.Dialer, addr string) (c *sockmeta.TCPConn, err error) {
	err = lab.Client.Do(func() error {
		p, err := d.Dial("tcp", addr)
		if err == nil {
			c = p.(*sockmeta.TCPConn)
		}
		return err
	})
	if err == nil {
		lab.t.Cleanup(func() { _ = c.Close() })
		err = c.SetDeadline(time.Now().Add(time.Minute))
	}
	return c, err
}

// roundTrip has the peer acknowledge all that was sent.
func roundTrip(t *testing.T, c net.Conn) {
	t.Helper()
	must1(t)(c.Write([]byte("ping")))
	read(t, c, "ping")
}

// settled waits until no more packets come by, for longer than acknowledgements
// are delayed, and returns what was seen.
func (lab *tcpTxLab) settled() testprog.WireWireCounts {
	lab.t.Helper()
	var before testprog.WireWireCounts
	for same := 0; ; same++ {
		tc, cgroup := lab.wire.counts(lab.t)
		if tc.Packets != cgroup.Packets || cgroup != before {
			same = 0
		}
		if same == 5 {
			for _, c := range []testprog.WireWireCounts{tc, cgroup} {
				if c.Mismatched+c.Unexpected+c.Lost != 0 {
					lab.t.Fatalf("TC     %+v\ncgroup %+v", tc, cgroup)
				}
			}
			return cgroup
		}
		before = cgroup
		time.Sleep(50 * time.Millisecond)
	}
}

// TestTCPSend has the record on every packet from the SYN on, until it is changed
// or taken away.
func TestTCPSend(t *testing.T) {
	testutil.Leaks(t)
	lab := newTCPTxLab(t, bpf.DefaultPolicy(), nil)
	port := uint16(9200)
	lab.listen(int(port), echoAll)
	for name, addr := range map[string]net.IP{"IPv4": lab.ServerAddr4.AsSlice(), "IPv6": lab.ServerAddr6.AsSlice()} {
		t.Run(name, func(t *testing.T) {
			before := lab.settled()
			md, id := lab.metadata()
			lab.expectOn(port, id)
			c, err := lab.dial(sockmeta.Dialer{Metadata: md, Require: true}, (&net.TCPAddr{IP: addr, Port: int(port)}).String())
			must(t, err)
			// What is acknowledged later leaves with the record, too.
			must(t, c.SetKeepAlive(false))
			roundTrip(t, c)
			opened := lab.settled()
			// SYN, ACK, data, and an ACK of the echo, which may be delayed
			if n := opened.Matched - before.Matched; n < 3 || opened.Absent != before.Absent {
				t.Errorf("%+v, before %+v", opened, before)
			}

			md, id = lab.metadata()
			must(t, c.SetMetadata(md))
			lab.expectOn(port, id)
			roundTrip(t, c)
			changed := lab.settled()
			if changed.Matched == opened.Matched {
				t.Errorf("%+v", changed)
			}

			for _, nothing := range []*sockmeta.Metadata{nil, {}} {
				must(t, c.SetMetadata(md))
				lab.settled()
				must(t, c.SetMetadata(nothing))
				lab.expectOn(port, noMetadata)
				roundTrip(t, c)
				cleared := lab.settled()
				if cleared.Matched != changed.Matched || cleared.Absent == changed.Absent {
					t.Errorf("%+v, before %+v", cleared, changed)
				}
				changed = cleared
				lab.expectOn(port, id)
			}
			must(t, c.SetMetadata(md))
			must(t, c.CloseWrite())
			if _, err := c.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("read: %v", err)
			}
			must(t, c.Close())
			if closed := lab.settled(); closed.Matched == changed.Matched {
				t.Errorf("no FIN: %+v", closed)
			}
		})
	}
}

// TestTCPSendRetransmission keeps the record on what is sent again, and on what
// leaves from timers, tasklets (TSQ) and for incoming acknowledgements.
func TestTCPSendRetransmission(t *testing.T) {
	testutil.Leaks(t)
	const dropEvery = 23
	lab := newTCPTxLab(t, bpf.DefaultPolicy(), func(spec *ebpf.CollectionSpec) {
		must(t, spec.Variables["drop_every"].Set(uint32(dropEvery)))
	})
	const port, size, conns = 9300, 4 << 20, 4
	lab.listen(port, func(c net.Conn) {
		n, _ := io.Copy(io.Discard, c)
		_ = binary.Write(c, binary.BigEndian, n)
	})
	// One record for all: the map knows ports of the server's.
	md, id := lab.metadata()
	lab.expectOn(port, id)
	attachTC(t, lab.Server, lab.ServerIf, ebpf.AttachTCXIngress, lab.wire.LoseTcp)
	retransmitted := tcpRetransmissions(t, lab)
	var wg sync.WaitGroup
	errs := make([]error, conns)
	for i := range conns {
		c, err := lab.dial(sockmeta.Dialer{Metadata: md, Require: true}, (&net.TCPAddr{IP: lab.ServerAddr4.AsSlice(), Port: port}).String())
		must(t, err)
		wg.Go(func() {
			_, err := c.Write(make([]byte, size))
			err = errors.Join(err, c.CloseWrite())
			var n int64
			err = errors.Join(err, binary.Read(c, binary.BigEndian, &n))
			if err == nil && n != size {
				err = io.ErrShortWrite
			}
			errs[i] = err
		})
	}
	wg.Wait()
	must(t, errors.Join(errs...))
	counts := lab.settled()
	var dropped uint64
	must(t, lab.wire.Dropped.Get(&dropped))
	again := tcpRetransmissions(t, lab) - retransmitted
	t.Logf("%d packets with the record, %d dropped, %d segments sent again", counts.Matched, dropped, again)
	if dropped == 0 || again < int(dropped) || counts.Absent != 0 {
		t.Errorf("%d dropped, %d segments sent again, %+v", dropped, again, counts)
	}
}

func tcpRetransmissions(t *testing.T, lab *tcpTxLab) (n int) {
	t.Helper()
	must(t, lab.Client.Do(func() error {
		values, err := snmp("snmp")
		n = values["TcpRetransSegs"]
		return err
	}))
	return n
}

// TestTCPSendMany has connections side by side, each with its own record.
func TestTCPSendMany(t *testing.T) {
	lab := newTCPTxLab(t, bpf.DefaultPolicy(), nil)
	const conns = 50
	var wg sync.WaitGroup
	for i := range conns {
		port := 9400 + i
		lab.listen(port, echoAll)
		md, id := lab.metadata()
		if i%5 == 0 {
			md, id = nil, noMetadata
		}
		lab.expectOn(uint16(port), id)
		c, err := lab.dial(sockmeta.Dialer{Metadata: md}, (&net.TCPAddr{IP: lab.ServerAddr6.AsSlice(), Port: port}).String())
		must(t, err)
		wg.Go(func() {
			b := make([]byte, 3000)
			for range 50 {
				if _, err := c.Write(b); err != nil {
					t.Error(err)
					return
				}
				if _, err := io.ReadFull(c, b); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if counts := lab.settled(); counts.Matched < conns*50*4/5 || counts.Absent < conns*50/5 {
		t.Errorf("%+v", counts)
	}
}

// TestTCPSendApplies has the mark and the priority on every packet, and what the
// policy refuses on none.
func TestTCPSendApplies(t *testing.T) {
	lab := newTCPTxLab(t, bpf.Policy{MarkMask: 0xf0, MaxPriority: 6, LaunchTimes: true}, nil)
	const port = 9200
	lab.listen(port, echoAll)
	addr := (&net.TCPAddr{IP: lab.ServerAddr4.AsSlice(), Port: port}).String()
	md, id := lab.metadata()
	lab.expectOn(port, id)
	md.SetMark(0x50)
	md.SetPriority(5)
	c, err := lab.dial(sockmeta.Dialer{Metadata: md, Require: true}, addr)
	must(t, err)
	roundTrip(t, c)
	check := func(mark, priority uint32) {
		t.Helper()
		if got := lab.settled(); got.LastMark != mark || got.LastPriority != priority {
			t.Errorf("mark %#x, priority %d, want %#x, %d", got.LastMark, got.LastPriority, mark, priority)
		}
	}
	check(0x50, 5)

	md.SetMark(0x51)
	md.SetLaunchTime(1)
	wantError(t, c.SetMetadata(md), sockmeta.ErrRefused)
	roundTrip(t, c)
	check(0, 5)

	// Metadata that is no TLVs leaves what there was.
	bad := *md
	bad.Record().AreaLen |= 0xfc
	if err := c.SetMetadata(&bad); !sockmeta.IsMetadataError(err) {
		t.Errorf("malformed: %v", err)
	}
	roundTrip(t, c)
	check(0, 5)

	// Required, and refused in part.
	if _, err := lab.dial(sockmeta.Dialer{Metadata: md, Require: true}, addr); !errors.Is(err, sockmeta.ErrRefused) {
		t.Errorf("dial: %v", err)
	}
	if _, err := lab.dial(sockmeta.Dialer{Metadata: md}, addr); err != nil {
		t.Errorf("dial without need: %v", err)
	}
	if got, err := lab.attachment.Counts(); err != nil || got.MarkRefused == 0 || got.LaunchRefused == 0 || got.Sent == 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestTCPSendAccepted sets metadata on a connection that was accepted, and has
// others of the listener without.
func TestTCPSendAccepted(t *testing.T) {
	lab := newTCPTxLab(t, bpf.DefaultPolicy(), nil)
	// The server is the watched one here.
	var l *sockmeta.TCPListener
	must(t, lab.Client.Do(func() (err error) {
		l, err = sockmeta.ListenTCP("tcp", &net.TCPAddr{IP: lab.ClientAddr4.AsSlice()})
		return err
	}))
	defer l.Close()
	for i := range 2 {
		var peer net.Conn
		must(t, lab.Server.Do(func() (err error) {
			peer, err = net.Dial("tcp", l.Addr().String())
			return err
		}))
		defer peer.Close()
		must(t, peer.SetDeadline(time.Now().Add(time.Minute)))
		port := uint16(peer.LocalAddr().(*net.TCPAddr).Port)
		c, err := l.AcceptTCP()
		must(t, err)
		defer c.Close()
		id := noMetadata
		if i == 0 {
			var md *sockmeta.Metadata
			md, id = lab.metadata()
			must(t, c.SetMetadata(md))
		}
		lab.expectOn(port, id)
		must1(t)(c.Write([]byte("hello")))
		read(t, peer, "hello")
	}
	if counts := lab.settled(); counts.Matched == 0 || counts.Absent == 0 {
		t.Errorf("%+v", counts)
	}
}

// TestTCPSendNowhere says why where there can be no metadata.
func TestTCPSendNowhere(t *testing.T) {
	lab := newTCPTxLab(t, bpf.DefaultPolicy(), nil)
	const port = 9200
	lab.listen(port, echoAll)
	addr := (&net.TCPAddr{IP: lab.ServerAddr4.AsSlice(), Port: port}).String()
	md, id := lab.metadata()
	lab.expectOn(port, id)
	c, err := lab.dial(sockmeta.Dialer{Metadata: md, Require: true}, addr)
	must(t, err)
	roundTrip(t, c)
	lab.settled()
	must(t, lab.attachment.Close())
	wantError(t, c.SetMetadata(md), sockmeta.ErrNotSupported)
	wantError(t, c.SetMetadata(nil), sockmeta.ErrNotSupported)
	roundTrip(t, c)
	must(t, c.Close())
	wantError(t, c.SetMetadata(md), net.ErrClosed)

	// UDP has its own way, and metadata that is for TCP is no reason to fail.
	var d sockmeta.Dialer
	d.Metadata = md
	must(t, lab.Client.Do(func() error {
		u, err := d.DialContext(context.Background(), "udp", lab.to4().String())
		if err != nil {
			return err
		}
		return u.Close()
	}))
}

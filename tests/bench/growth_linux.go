// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/cilium/ebpf"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// manySockets is how many there are at most, of each kind.
const manySockets = 50000

// growthTarget is how much a packet may cost more, next to a plain socket's.
const growthTarget = 1.10

// growthSockets compares packets to one socket with packets to many: sent and
// received, so that the programs and all lookups are in it. A plain socket's packets
// cost more, too, where they go to many.
func growthSockets(m *meter) ([]Row, error) {
	l, err := m.produced()
	if err != nil {
		return nil, err
	}
	many := manySockets / m.scale
	limit, err := fileLimit(2*many + fileMargin)
	if err != nil {
		return nil, err
	}
	used := min(many, (limit-fileMargin)/2)
	// Plain sockets have the same ports, at an address of their own.
	second, err := l.extraAddress()
	if err != nil {
		return nil, err
	}
	optedAddrs, plainAddrs := ports(l.ServerAddr4, many), ports(second, many)
	if err := l.hold(l.cgroup, true, optedAddrs[used:], limit); err != nil {
		return nil, err
	}
	if err := l.hold(nil, false, plainAddrs[used:], limit); err != nil {
		return nil, err
	}
	from, err := l.source()
	if err != nil {
		return nil, err
	}
	opted, err := l.udps(optedAddrs[:used])
	if err != nil {
		return nil, err
	}
	plain, err := l.plainUDPs(nil, plainAddrs[:used])
	if err != nil {
		return nil, err
	}
	var md sockmeta.Metadata
	readOpted := func(c *sockmeta.UDPConn, b []byte) error {
		_, _, err := c.ReadMetadata(b, &md)
		return err
	}
	readPlain := func(c *net.UDPConn, b []byte) error {
		_, _, err := c.ReadFromUDPAddrPort(b)
		return err
	}
	s, err := m.compare(2,
		oneWay("opted", from, opted[:1], readOpted), oneWay("opted many", from, opted, readOpted),
		oneWay("plain", from, plain[:1], readPlain), oneWay("plain many", from, plain, readPlain),
	)
	if err != nil {
		return nil, err
	}
	what := fmt.Sprintf("UDP packet, 1 → %d sockets", many)
	if used < many {
		what += fmt.Sprintf(", to %d of them", used)
	}
	return []Row{
		s.ratio("growth-sockets/udp", what+", opted in", "the same growth of plain sockets",
			s.growth("opted many", "opted", "plain many", "plain"), atMost(growthTarget), "opted many", "opted"),
		s.slower("growth-sockets/plain", what+", plain", "one socket", nil, "plain many", "plain"),
	}, nil
}

// source returns an unconnected socket of the client.
func (l *lab) source() (c *net.UDPConn, err error) {
	err = l.Client.Do(func() (err error) {
		c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(l.ClientAddr4, 0)))
		return err
	})
	if err == nil {
		l.m.atEnd(c.Close)
	}
	return c, err
}

// firstPort is below those that the kernel chooses.
const firstPort = 10000

// ports returns n addresses that differ in the port.
func ports(addr netip.Addr, n int) (all []netip.AddrPort) {
	for i := range n {
		all = append(all, netip.AddrPortFrom(addr, uint16(firstPort+i)))
	}
	return all
}

// oneWay sends a batch of datagrams, each to one of the sockets, and reads them.
func oneWay[C packetConn](name string, from *net.UDPConn, to []C, read func(C, []byte) error) contender {
	var chosen [batchSize]C
	var addrs [batchSize]netip.AddrPort
	payload, buf := make([]byte, 64), make([]byte, 2048)
	return contender{name: name, prepare: func() error {
		for i := range chosen {
			c := to[rand.IntN(len(to))]
			chosen[i], addrs[i] = c, c.LocalAddr().(*net.UDPAddr).AddrPort()
			if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
				return err
			}
		}
		return nil
	}, batch: func() error {
		for _, addr := range addrs {
			if _, err := from.WriteToUDPAddrPort(payload, addr); err != nil {
				return err
			}
		}
		for _, c := range chosen {
			if err := read(c, buf); err != nil {
				return err
			}
		}
		return nil
	}}
}

// growthGoroutines compares one goroutine with many that read from one socket, and
// that send on one.
func growthGoroutines(m *meter) ([]Row, error) {
	l, err := m.produced()
	if err != nil {
		return nil, err
	}
	const many = 16
	opted, err := l.udp()
	if err != nil {
		return nil, err
	}
	plain, err := l.plainUDP(nil)
	if err != nil {
		return nil, err
	}
	to, err := l.sink()
	if err != nil {
		return nil, err
	}
	payload := make([]byte, 64)
	readOpted := func() func() error {
		var md sockmeta.Metadata
		buf := make([]byte, 2048)
		return func() error {
			_, _, err := opted.ReadMetadata(buf, &md)
			return err
		}
	}
	readPlain := func() func() error {
		buf := make([]byte, 2048)
		return func() error {
			_, _, _, _, err := plain.ReadMsgUDPAddrPort(buf, nil)
			return err
		}
	}
	writeOpted := func() func() error {
		var md sockmeta.Metadata
		err := md.SetUint64(sockmeta.KeyUser, 1)
		return func() error {
			_, werr := opted.WriteMetadata(payload, &md, to)
			return errors.Join(err, werr)
		}
	}
	writePlain := func() func() error {
		return func() error {
			_, err := plain.WriteToUDPAddrPort(payload, to)
			return err
		}
	}
	var contenders []contender
	for _, side := range []struct {
		name string
		conn packetConn // to fill, nil where nothing is read
		make func() func() error
	}{
		{"read opted", opted, readOpted}, {"read plain", plain, readPlain},
		{"write opted", nil, writeOpted}, {"write plain", nil, writePlain},
	} {
		for _, n := range []int{1, many} {
			c := contender{name: fmt.Sprint(side.name, " ", n), batch: crowd(n, side.make)}
			if side.conn != nil {
				filled, err := l.waiting(c.name, side.conn, c.batch)
				if err != nil {
					return nil, err
				}
				c.prepare = filled.prepare
			}
			contenders = append(contenders, c)
		}
	}
	s, err := m.atOnce(1, contenders...)
	if err != nil {
		return nil, err
	}
	row := func(id, what string) Row {
		large, small := fmt.Sprint(id, " opted ", many), fmt.Sprint(id, " opted ", 1)
		return s.ratio("growth-goroutines/"+id, fmt.Sprintf("%s, 1 → %d goroutines on a socket", what, many),
			"the same growth of a plain socket",
			s.growth(large, small, fmt.Sprint(id, " plain ", many), fmt.Sprint(id, " plain ", 1)),
			atMost(growthTarget), large, small)
	}
	return []Row{row("read", "UDP read with metadata"), row("write", "UDP send with metadata")}, nil
}

// crowd returns a batch that n goroutines share; work makes what each does once an
// operation.
func crowd(n int, work func() func() error) func() error {
	var ops []func() error
	for range n {
		ops = append(ops, repeat(batchSize/n, work()))
	}
	return func() error {
		var wg sync.WaitGroup
		errs := make([]error, n)
		for i, op := range ops {
			wg.Go(func() { errs[i] = op() })
		}
		wg.Wait()
		return errors.Join(errs...)
	}
}

// growthRing compares receive maps of few slots with one of many, whose slots are
// in no cache when they come up.
func growthRing(m *meter) ([]Row, error) {
	l, err := m.produced()
	if err != nil {
		return nil, err
	}
	from, err := l.source()
	if err != nil {
		return nil, err
	}
	const few = 1 << 10
	many := 1 << 20 >> bits.Len(uint(m.scale-1))
	var md sockmeta.Metadata
	read := func(c *sockmeta.UDPConn, b []byte) error {
		_, _, err := c.ReadMetadata(b, &md)
		return err
	}
	var contenders []contender
	for _, ring := range []struct {
		name  string
		slots int
	}{{"few", few}, {"many", many}} {
		c, err := l.ring(ring.slots)
		if err != nil {
			return nil, err
		}
		contenders = append(contenders, oneWay(ring.name, from, []*sockmeta.UDPConn{c}, read))
	}
	s, err := m.compare(1, contenders...)
	if err != nil {
		return nil, err
	}
	what := fmt.Sprintf("UDP packet, ring of %d → %d slots", few, many)
	return []Row{s.slower("growth-ring/udp", what, "the small ring", atMost(growthTarget), "many", "few")}, nil
}

// ring makes a socket that has an attachment with so many slots, of all CPUs
// together.
func (l *lab) ring(slots int) (*sockmeta.UDPConn, error) {
	possible, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, err
	}
	each := 1
	for each*2*possible <= slots {
		each *= 2
	}
	cgroup, err := netlab.NewCgroup("bench-ring")
	if err != nil {
		return nil, err
	}
	l.m.atEnd(cgroup.Close)
	a, err := bpf.Attach(bpf.Options{Cgroup: cgroup.Path(), SlotsPerCPU: each, MaxSockets: 2 * manySockets, MaxSocketsPerUser: 2 * manySockets})
	if err != nil {
		return nil, err
	}
	l.m.atEnd(a.Close)
	other := *l
	other.cgroup = cgroup
	return other.udp()
}

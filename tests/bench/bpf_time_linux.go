// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// bpfTime shows what the programs take a packet, as the kernel measures it
// (bpf_stats), less what it finds for a program that does nothing.
func bpfTime(m *meter) ([]Row, error) {
	l, err := m.produced()
	if err != nil {
		return nil, err
	}
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		return nil, err
	}
	m.atEnd(stats.Close)
	in, err := l.ingress()
	if err != nil {
		return nil, err
	}
	out, err := l.egress()
	if err != nil {
		return nil, err
	}
	flows := append(in, out...)
	times := make(samples)
	var contenders []contender
	for _, f := range flows {
		// What is timed by the clock is not looked at.
		contenders = append(contenders, contender{name: f.name, batch: func() error {
			took, err := f.took()
			times[f.name] = append(times[f.name], took)
			return err
		}})
	}
	if _, err := m.compare(4, contenders...); err != nil {
		return nil, err
	}
	row := func(id, what string, ns float64, name, base string) Row {
		v := times.per(func(ns func(string) float64) float64 { return ns(name) - ns(base) })
		return Row{ID: "bpf/" + id, What: "BPF a packet, " + what, Value: v, Unit: Nanoseconds, Target: atMost(ns),
			Nanos: times.time(name).Median, AgainstNanos: times.time(base).Median}
	}
	const opted, other = 120, 15
	rows := []Row{
		row("udp-in", "UDP in, opted in", opted, "udp in", "empty in"),
		row("tcp-in", "TCP in, opted in", opted, "tcp in", "empty in"),
		row("udp-out", "UDP out with metadata", opted, "udp out", "empty out"),
		row("udp-in-other", "UDP in, other sockets", other, "udp in other", "empty in"),
		row("tcp-in-other", "TCP in, other sockets", other, "tcp in other", "empty in"),
		row("udp-out-without", "UDP out, opted in, without metadata", other, "udp out without", "empty out"),
		row("udp-out-other", "UDP out, other sockets", other, "udp out other", "empty out"),
	}
	for i := range rows {
		rows[i].Against = "an empty program"
	}
	return rows, nil
}

// traffic is packets that go through a program.
type traffic struct {
	name string
	prog *ebpf.Program
	send func() error
}

// took sends the packets and returns how long the program ran for each, in ns.
func (t *traffic) took() (float64, error) {
	before, err := t.prog.Stats()
	if err != nil {
		return 0, err
	}
	if err := t.send(); err != nil {
		return 0, err
	}
	after, err := t.prog.Stats()
	if err != nil {
		return 0, err
	}
	n := after.RunCount - before.RunCount
	// The kernel may have put several segments into one packet.
	if n < batchSize/8 {
		return 0, fmt.Errorf("the program saw %d packets of %d", n, batchSize)
	}
	return float64((after.Runtime - before.Runtime).Nanoseconds()) / float64(n), nil
}

// program returns the program that looks at the cgroup's packets.
func (l *lab) program(typ ebpf.AttachType) (*ebpf.Program, error) {
	dir, err := os.Open(l.cgroup.Path())
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	attached, err := link.QueryPrograms(link.QueryOptions{Target: int(dir.Fd()), Attach: typ})
	if err != nil {
		return nil, err
	}
	if n := len(attached.Programs); n != 1 {
		return nil, fmt.Errorf("%d programs of type %v are attached, want 1", n, typ)
	}
	prog, err := ebpf.NewProgramFromID(attached.Programs[0].ID)
	if err == nil {
		l.m.atEnd(prog.Close)
	}
	return prog, err
}

// sides are sockets whose packets a program sees, and one with an empty program.
type sides struct {
	prog, empty   *ebpf.Program
	opted         *sockmeta.UDPConn
	other, hooked *net.UDPConn
}

func (l *lab) sides(at ebpf.AttachType) (s sides, err error) {
	if s.prog, err = l.program(at); err != nil {
		return s, err
	}
	nothing, empty, err := l.empty(ebpf.CGroupSKB, at)
	if err != nil {
		return s, err
	}
	s.empty = empty
	if s.opted, err = l.udp(); err != nil {
		return s, err
	}
	if s.other, err = l.plainUDP(l.cgroup); err != nil {
		return s, err
	}
	s.hooked, err = l.plainUDP(nothing)
	return s, err
}

// ingress returns what comes in. The packets are sent from the CPU that does not
// read them.
func (l *lab) ingress() ([]traffic, error) {
	s, err := l.sides(ebpf.AttachCGroupInetIngress)
	if err != nil {
		return nil, err
	}
	var all []traffic
	for _, u := range []struct {
		name string
		conn packetConn
		prog *ebpf.Program
	}{{"empty in", s.hooked, s.empty}, {"udp in", s.opted, s.prog}, {"udp in other", s.other, s.prog}} {
		buf := make([]byte, 2048)
		read := each(func() error {
			_, _, err := u.conn.ReadFrom(buf)
			return err
		})
		c, err := l.waiting(u.name, u.conn, read)
		if err != nil {
			return nil, err
		}
		all = append(all, traffic{name: u.name, prog: u.prog, send: func() error {
			return errors.Join(c.prepare(), c.batch())
		}})
	}
	client, server, err := l.tcp()
	if err != nil {
		return nil, err
	}
	otherClient, otherServer, err := l.plainTCP(l.cgroup)
	if err != nil {
		return nil, err
	}
	return append(all,
		traffic{name: "tcp in", prog: s.prog, send: l.segments(client, server)},
		traffic{name: "tcp in other", prog: s.prog, send: l.segments(otherClient, otherServer)},
	), nil
}

// segments returns a function that sends a batch of small segments and reads them.
func (l *lab) segments(client, server net.Conn) func() error {
	b := make([]byte, 64)
	send := each(func() error {
		_, err := client.Write(b)
		return err
	})
	buf := make([]byte, batchSize*len(b))
	return func() error {
		if err := l.m.sender.do(send); err != nil {
			return err
		}
		_, err := io.ReadFull(server, buf)
		return err
	}
}

// egress returns what goes out.
func (l *lab) egress() ([]traffic, error) {
	s, err := l.sides(ebpf.AttachCGroupInetEgress)
	if err != nil {
		return nil, err
	}
	// One that never sends metadata.
	without, err := l.udp()
	if err != nil {
		return nil, err
	}
	to, err := l.sink()
	if err != nil {
		return nil, err
	}
	payload := make([]byte, 64)
	writes := func(c net.PacketConn) func() error {
		addr := net.UDPAddrFromAddrPort(to)
		return each(func() error {
			_, err := c.WriteTo(payload, addr)
			return err
		})
	}
	return []traffic{
		{name: "empty out", prog: s.empty, send: writes(s.hooked)},
		{name: "udp out", prog: s.prog, send: metadataWrites(s.opted, payload, to)},
		{name: "udp out without", prog: s.prog, send: writes(without)},
		{name: "udp out other", prog: s.prog, send: writes(s.other)},
	}, nil
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
)

// The processes with sockets. Of each side's two, the second takes what the first
// gives.
const (
	serverRoot   = iota // maps the records
	serverNobody        // asks the kernel for each
	clientOne
	clientTwo
	processes
)

// presence is when there is a producer, or an attachment.
type presence int

const (
	always presence = iota
	never
	changing
)

// A plan is what happens in one round.
type plan struct {
	tasks       [processes][]Task
	connections map[uint16]uint64 // ids of TCP connections by the server's port
	gro         map[int]bool      // flows that are received in aggregates

	attachments presence
	options     bpf.Options
	own         bool // the first attachment is this process's

	applications []application

	producer presence
	native   bool
	program  string
}

// planner draws plans.
type planner struct {
	rng    *rand.Rand
	pair   *netlab.Pair
	number uint64 // of the last sender
}

// What ports there are, on both sides.
const (
	flowPort      = 7000
	streamPort    = 7100
	streamPorts   = 8
	connectedPort = 8000
)

// roundTime is how long senders send at most. Attaching takes a good part of a
// second where the machine has other things to do.
const roundTime = 2 * time.Second

func (p *planner) next() *plan {
	pl := &plan{
		connections: make(map[uint16]uint64),
		gro:         make(map[int]bool),
		attachments: p.presence(),
		options: bpf.Options{
			// Few, so that datagrams wait for longer than their records
			// stay, or as many as by default.
			SlotsPerCPU: pick(p.rng, []int{64, 64, 0}),
		},
		own:      p.rng.IntN(3) == 0,
		producer: p.presence(),
		native:   p.rng.IntN(2) == 0,
		program:  pick(p.rng, []string{echoUDP, echoUDP, echoTCP}),
	}
	duration := roundTime / 10
	if pl.attachments == changing || pl.producer == changing {
		duration = roundTime / 2
	}
	duration += time.Duration(p.rng.Int64N(int64(roundTime / 2)))
	for i := range 2 + p.rng.IntN(4) {
		p.flow(pl, i, duration)
	}
	if p.rng.IntN(2) == 0 || pl.program == echoTCP {
		p.stream(pl, duration)
	}
	if local := p.rng.IntN(2) == 0; p.rng.IntN(3) == 0 {
		for range 1 + p.rng.IntN(maxApplications) {
			pl.applications = append(pl.applications, p.application(local))
		}
	}
	return pl
}

func (p *planner) presence() presence {
	return pick(p.rng, []presence{always, always, always, never, changing, changing, changing, changing})
}

func pick[T any](rng *rand.Rand, of []T) T { return of[rng.IntN(len(of))] }

// families are the networks of sockets, and of those who send to them.
var families = []struct {
	network string
	senders []string
}{
	{"udp4", []string{"udp4"}},
	{"udp6", []string{"udp6"}},
	{"udp", []string{"udp4", "udp6"}},
}

func (p *planner) flow(pl *plan, flow int, duration time.Duration) {
	family := pick(p.rng, families)
	port := flowPort + uint16(flow)
	r := Task{
		Kind: "receive", Seed: p.rng.Uint64(), Flow: flow, Network: family.network,
		Sockets: 1, Buffer: pick(p.rng, []int{1, 32 << 10, 4 << 20}),
		How: reading(p.rng.IntN(int(readings))),
	}
	switch family.network {
	case "udp4":
		r.Local = netip.AddrPortFrom(p.pair.ServerAddr4, port)
	case "udp6":
		r.Local = netip.AddrPortFrom(p.pair.ServerAddr6, port)
	default:
		r.Local = netip.AddrPortFrom(netip.IPv6Unspecified(), port)
	}
	at := serverRoot + p.rng.IntN(2)
	switch p.rng.IntN(5) {
	case 0:
		r.Sockets = 2 + p.rng.IntN(2)
	case 1:
		r.Connected = family.network != "udp"
	case 2:
		r.GRO, r.Buffer = true, 4<<20
		pl.gro[flow] = true
	case 3:
		r.Handover, at = give, serverRoot
		second := r
		second.Handover = take
		pl.tasks[serverNobody] = append(pl.tasks[serverNobody], second)
	}
	if r.Connected {
		_, local := p.addresses(family.senders[0])
		r.Remote = netip.AddrPortFrom(local, connectedPort+uint16(flow))
	}
	pl.tasks[at] = append(pl.tasks[at], r)

	senders := 1 + p.rng.IntN(3)
	if r.Connected {
		senders = 1
	}
	for i := range senders {
		p.sender(pl, &r, family.senders[i%len(family.senders)], duration)
	}
}

func (p *planner) addresses(network string) (server, client netip.Addr) {
	if network == "udp4" {
		return p.pair.ServerAddr4, p.pair.ClientAddr4
	}
	return p.pair.ServerAddr6, p.pair.ClientAddr6
}

func (p *planner) sender(pl *plan, r *Task, network string, duration time.Duration) {
	remote, local := p.addresses(network)
	s := Task{
		Kind: "send", Seed: p.rng.Uint64(), Flow: r.Flow, Network: network,
		Local: netip.AddrPortFrom(local, 0), Remote: netip.AddrPortFrom(remote, r.Local.Port()),
		Connected: p.rng.IntN(2) == 0, For: duration,
		Number: p.nextNumber(), As: sending(p.rng.IntN(int(sendings))),
	}
	if r.Connected {
		s.Local = r.Remote
	}
	at := clientOne + p.rng.IntN(2)
	switch {
	case r.GRO && p.rng.IntN(2) == 0:
		s.As = asTrain
	case s.As < asPlain && p.rng.IntN(3) == 0:
		s.Handover, at = give, clientOne
		second := s
		second.Handover, second.Seed, second.Number = take, p.rng.Uint64(), p.nextNumber()
		pl.tasks[clientTwo] = append(pl.tasks[clientTwo], second)
	}
	pl.tasks[at] = append(pl.tasks[at], s)
}

func (p *planner) application(local bool) application {
	app := application{local: local}
	for flow := range 1 + p.rng.IntN(2) {
		network, addr := "udp4", netip.MustParseAddr("127.0.0.1")
		if p.rng.IntN(2) == 0 {
			network, addr = "udp6", netip.IPv6Loopback()
		}
		r := Task{
			Kind: "receive", Seed: p.rng.Uint64(), Flow: flow, Network: network,
			Local: netip.AddrPortFrom(addr, flowPort+uint16(flow)), Sockets: 1 + p.rng.IntN(2),
			Buffer: pick(p.rng, []int{1, 32 << 10, 4 << 20}), How: reading(p.rng.IntN(int(readings))),
			For: roundTime / 4,
		}
		app.tasks = append(app.tasks, r)
		for range 1 + p.rng.IntN(2) {
			app.tasks = append(app.tasks, Task{
				Kind: "send", Seed: p.rng.Uint64(), Flow: flow, Network: network,
				Local: netip.AddrPortFrom(addr, 0), Remote: r.Local, Connected: p.rng.IntN(2) == 0,
				For: r.For, Number: p.nextNumber(), As: sending(p.rng.IntN(int(sendings))),
			})
		}
	}
	return app
}

// nextNumber numbers senders by the bits that an id has for them.
func (p *planner) nextNumber() uint64 {
	p.number = (p.number + 1) % (1 << (63 - numberShift))
	return p.number
}

func (p *planner) stream(pl *plan, duration time.Duration) {
	server := Task{Kind: "serve", Seed: p.rng.Uint64(), Network: "tcp"}
	for i := range streamPorts {
		port := uint16(streamPort + i)
		server.Ports = append(server.Ports, port)
		pl.connections[port] = connectionID(i, port)
	}
	at := serverRoot + p.rng.IntN(2)
	if at == serverRoot && p.rng.IntN(2) == 0 {
		server.Handover = give
		pl.tasks[serverNobody] = append(pl.tasks[serverNobody],
			Task{Kind: "adopt", Seed: p.rng.Uint64(), Network: server.Network, Handover: take})
	}
	pl.tasks[at] = append(pl.tasks[at], server)
	for _, at := range []int{clientOne, clientTwo} {
		remote, _ := p.addresses(pick(p.rng, []string{"udp4", "udp6"}))
		pl.tasks[at] = append(pl.tasks[at], Task{
			Kind: "dial", Seed: p.rng.Uint64(), Network: "tcp", For: duration,
			Remote: netip.AddrPortFrom(remote, 0), Ports: server.Ports,
		})
	}
}

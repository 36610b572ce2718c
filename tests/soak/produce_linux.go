// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"net"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testprog"
)

// producer puts testprog's programs at an interface.
type producer struct {
	netns *netlab.Namespace
	iface string
	coll  *ebpf.Collection
	link  link.Link
	// native says that the last one attached is in the driver.
	native bool
}

func newProducer(netns *netlab.Namespace, iface string) (*producer, error) {
	spec, err := testprog.Prepared(testprog.LoadEcho())
	if err != nil {
		return nil, err
	}
	coll, err := ebpf.NewCollection(spec)
	return &producer{netns: netns, iface: iface, coll: coll}, err
}

func (p *producer) attach(program string, native bool) error {
	flags := link.XDPGenericMode
	if native {
		flags = link.XDPDriverMode
	}
	return p.netns.Do(func() error {
		ifi, err := net.InterfaceByName(p.iface)
		if err != nil {
			return err
		}
		p.link, err = link.AttachXDP(link.XDPOptions{
			Program: p.coll.Programs[program], Interface: ifi.Index, Flags: flags,
		})
		p.native = native
		return err
	})
}

// replace puts another program in its place, with no packet in between.
func (p *producer) replace(program string) error { return p.link.Update(p.coll.Programs[program]) }

// detach does not leave it to the descriptor's end: while a process is being
// started it has a copy.
func (p *producer) detach() error {
	if p.link == nil {
		return nil
	}
	err := errors.Join(p.link.Detach(), p.link.Close())
	p.link = nil
	return err
}

// refused returns how many packets went on without metadata.
func (p *producer) refused() (n uint64, err error) {
	err = p.coll.Variables["refused"].Get(&n)
	return n, err
}

// close lets go of the collection: its variables are mapped until the collector
// finds them, and keep their maps. Closing it again does nothing.
func (p *producer) close() error {
	if p.coll == nil {
		return nil
	}
	err := p.detach()
	p.coll.Close()
	p.coll = nil
	return err
}

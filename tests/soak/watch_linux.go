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

// watch is testprog's consumers at TC egress of the client's interface. It has to
// end before the attachment does: for a second after that, a record may be an
// earlier packet's (bpf/include/sockmeta_tx.h).
type watch struct {
	udp, tcp *testprog.WireObjects
	links    []link.Link
}

// watchWire reads the records of an attachment. connections are the ids that the
// TCP connections' should have, by their ports.
func watchWire(pair *netlab.Pair, ids map[string]ebpf.MapID, connections map[uint16]uint64) (_ *watch, err error) {
	maps := make(map[string]*ebpf.Map)
	defer func() {
		for _, m := range maps {
			_ = m.Close()
		}
	}()
	for name, id := range ids {
		if maps[name], err = ebpf.NewMapFromID(id); err != nil {
			return nil, err
		}
	}
	w := &watch{udp: new(testprog.WireObjects), tcp: new(testprog.WireObjects)}
	defer func() {
		if err != nil {
			_ = w.close()
		}
	}()
	for _, objects := range []*testprog.WireObjects{w.udp, w.tcp} {
		if err := testprog.LoadWireObjects(objects, &ebpf.CollectionOptions{MapReplacements: maps}); err != nil {
			return nil, err
		}
	}
	for port, id := range connections {
		if err := w.tcp.Connections.Put(port, id); err != nil {
			return nil, err
		}
	}
	return w, pair.Client.Do(func() error {
		ifi, err := net.InterfaceByName(pair.ClientIf)
		if err != nil {
			return err
		}
		for _, program := range []*ebpf.Program{w.udp.TcUdp, w.tcp.TcTcp} {
			l, err := link.AttachTCX(link.TCXOptions{Interface: ifi.Index, Program: program, Attach: ebpf.AttachTCXEgress})
			if err != nil {
				return err
			}
			w.links = append(w.links, l)
		}
		return nil
	})
}

// close lets go of the objects, as producer.close does.
func (w *watch) close() error {
	var errs []error
	for _, l := range w.links {
		errs = append(errs, l.Close())
	}
	for _, objects := range []*testprog.WireObjects{w.udp, w.tcp} {
		if objects != nil {
			errs = append(errs, objects.Close())
		}
	}
	w.links, w.udp, w.tcp = nil, nil, nil
	return errors.Join(errs...)
}

// end takes the consumers away, and counts what they saw. It returns how many
// datagrams had their record or should have had one, and how many rightly none.
func (w *watch) end(l *Ledger) (with, without int, err error) {
	var udp, tcp testprog.WireWireCounts
	for _, k := range w.links {
		err = errors.Join(err, k.Close())
	}
	w.links = nil
	err = errors.Join(err, w.udp.Tc.Get(&udp), w.tcp.Tc.Get(&tcp), w.close())
	for what, c := range map[string]testprog.WireWireCounts{"udp": udp, "tcp": tcp} {
		l.add("wire: "+what+" packets", int(c.Packets))
		l.add("wire: "+what+" matched", int(c.Matched))
		l.add("wire: "+what+" had none, rightly", int(c.Absent))
		l.add("wire: "+what+" lost", int(c.Lost))
		if c.Mismatched != 0 || c.Unexpected != 0 {
			l.violate("wire: %d %s packets with another's record, %d with one that was not sent; the last %#x with %#x, %d",
				c.Mismatched, what, c.Unexpected, c.BadId, c.BadRecord, c.BadErr)
		}
	}
	return int(udp.Matched + udp.Lost), int(udp.Absent), err
}

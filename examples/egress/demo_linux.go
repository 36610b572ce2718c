// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/cilium/ebpf"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/internal/demo"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// The demo sends so many datagrams of each zone.
var sent = map[uint32]uint64{7: 3, 9: 2}

const (
	payload = "a datagram"
	// headers are Ethernet's, IPv4's and UDP's.
	headers = 14 + 20 + 8
	port    = 7777
)

func runDemo() error {
	return demo.Hosts(bpf.DefaultPolicy(), func(p *netlab.Pair, a *bpf.Attachment) error {
		// No packet is to wait on the way for the neighbour's address, behind others.
		if err := p.Introduce(); err != nil {
			return err
		}
		objs, err := load(a)
		if err != nil {
			return err
		}
		defer objs.Close()
		return p.Client.Do(func() error {
			l, err := attach(objs.Account, p.ClientIf)
			switch {
			case err == nil:
				defer l.Close()
			case errors.Is(err, ebpf.ErrNotSupported):
				// By netlink. The filter goes with the interface.
				err = netlab.AddFilter(p.Client, p.ClientIf, netlab.Egress, objs.Account.FD())
			}
			if err != nil {
				return err
			}
			if err := send(netip.AddrPortFrom(p.ServerAddr4, port)); err != nil {
				return err
			}
			if err := print(os.Stdout, objs.Zones); err != nil {
				return err
			}
			return check(objs.Zones)
		})
	})
}

// send sends the datagrams of the zones, and one of none.
func send(to netip.AddrPort) error {
	c, err := sockmeta.ListenUDP("udp4", nil)
	if err != nil {
		return err
	}
	defer c.Close()
	for zone, n := range sent {
		var md sockmeta.Metadata
		if err := md.SetUint32(keyZone, zone); err != nil {
			return err
		}
		for range n {
			if _, err := c.WriteMetadata([]byte(payload), &md, to); err != nil {
				return err
			}
		}
	}
	_, err = c.WriteToUDPAddrPort([]byte(payload), to)
	return err
}

// check compares what was counted with what was sent.
func check(zones *ebpf.Map) error {
	counted, err := count(zones)
	if err != nil {
		return err
	}
	for zone, n := range sent {
		if want := (accountTraffic{Packets: n, Bytes: n * (headers + uint64(len(payload)))}); counted[zone] != want {
			return fmt.Errorf("zone %d: counted %+v, want %+v", zone, counted[zone], want)
		}
	}
	// The kernel sends packets of its own, too.
	if counted[0].Packets == 0 {
		return errors.New("no packet without a zone was counted")
	}
	if len(counted) != len(sent)+1 {
		return fmt.Errorf("counted %d zones, want %d", len(counted), len(sent)+1)
	}
	fmt.Println("ok: all packets were counted for the zone that they were sent with")
	return nil
}

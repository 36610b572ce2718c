// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/internal/demo"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// port is where the server receives.
const port = 7777

func runDemo() error {
	return demo.Hosts(bpf.DefaultPolicy(), func(p *netlab.Pair, _ *bpf.Attachment) error {
		return p.Server.Do(func() error {
			l, err := attach(p.ServerIf)
			if err != nil {
				return err
			}
			defer l.Close()
			c, err := sockmeta.ListenUDP("udp", &net.UDPAddr{Port: port})
			if err != nil {
				return err
			}
			defer c.Close()
			return show(p, c)
		})
	})
}

// show has the client send by both families, and checks the source of what came against
// the client's own address.
func show(p *netlab.Pair, c *sockmeta.UDPConn) error {
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return err
	}
	var want net.HardwareAddr
	err := p.Client.Do(func() error {
		ifi, err := net.InterfaceByName(p.ClientIf)
		if err != nil {
			return err
		}
		want = ifi.HardwareAddr
		for _, to := range []netip.Addr{p.ServerAddr4, p.ServerAddr6} {
			s, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, port)))
			if err != nil {
				return err
			}
			defer s.Close()
			if _, err := s.Write([]byte("a datagram")); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	var wrong error
	left := 2
	err = receive(c, func(from netip.AddrPort, source net.HardwareAddr, err error) {
		fmt.Println("from", demo.Unmap(from), "by", source)
		if err == nil && !bytes.Equal(source, want) {
			err = fmt.Errorf("from %s by %s, want %s, the client's", from, source, want)
		}
		if wrong == nil {
			wrong = err
		}
		if left--; left == 0 {
			// That ends receive.
			_ = c.SetReadDeadline(time.Now())
		}
	})
	switch {
	case wrong != nil:
		return wrong
	case left > 0:
		return err
	}
	fmt.Println("ok: each datagram came with the Ethernet address of the client")
	return nil
}

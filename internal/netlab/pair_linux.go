// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"errors"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Pair is two hosts, each a namespace, on one network. They reach each other
// by IPv4 and IPv6 addresses from the ranges set aside for documentation.
type Pair struct {
	Client, Server *Namespace

	ClientAddr4, ServerAddr4 netip.Addr
	ClientAddr6, ServerAddr6 netip.Addr

	// ClientIf and ServerIf name the interfaces that join the hosts.
	ClientIf, ServerIf string
}

// NewPair creates a pair of hosts. It is ready for the first packet.
func NewPair() (*Pair, error) {
	p := &Pair{
		ClientAddr4: netip.MustParseAddr("192.0.2.1"),
		ServerAddr4: netip.MustParseAddr("192.0.2.2"),
		ClientAddr6: netip.MustParseAddr("2001:db8::1"),
		ServerAddr6: netip.MustParseAddr("2001:db8::2"),
		ClientIf:    "client0",
		ServerIf:    "server0",
	}

	var err error
	if p.Client, err = New(); err != nil {
		return nil, err
	}
	if p.Server, err = New(); err != nil {
		return nil, errors.Join(err, p.Client.Close())
	}
	err = VethPair(p.Client, p.Server, VethConfig{
		A: VethEnd{Name: p.ClientIf, Addrs: networks(p.ClientAddr4, p.ClientAddr6)},
		B: VethEnd{Name: p.ServerIf, Addrs: networks(p.ServerAddr4, p.ServerAddr6)},
	})
	if err != nil {
		return nil, errors.Join(err, p.Client.Close(), p.Server.Close())
	}
	return p, nil
}

// Introduce gives each host the other's hardware address, so that no packet waits
// for it.
func (p *Pair) Introduce() error {
	return errors.Join(
		introduce(p.Client, p.ClientIf, p.Server, p.ServerIf, p.ServerAddr4, p.ServerAddr6),
		introduce(p.Server, p.ServerIf, p.Client, p.ClientIf, p.ClientAddr4, p.ClientAddr6),
	)
}

// introduce makes the other host, by all its addresses, known at an interface.
func introduce(ns *Namespace, name string, other *Namespace, otherName string, addrs ...netip.Addr) error {
	var hw net.HardwareAddr
	err := other.Do(func() error {
		ifi, err := net.InterfaceByName(otherName)
		if err == nil {
			hw = ifi.HardwareAddr
		}
		return err
	})
	for _, addr := range addrs {
		if err == nil {
			err = AddNeighbour(ns, name, addr, hw)
		}
	}
	return err
}

// Close disconnects the hosts and releases their namespaces. The link is gone
// when it returns, even if sockets keep a namespace alive. Closing a pair again
// does nothing.
func (p *Pair) Close() error {
	err := DeleteLink(p.Client, p.ClientIf)
	if errors.Is(err, unix.ENODEV) || errors.Is(err, os.ErrClosed) {
		err = nil
	}
	return errors.Join(err, p.Client.Close(), p.Server.Close())
}

func networks(addr4, addr6 netip.Addr) []netip.Prefix {
	return []netip.Prefix{netip.PrefixFrom(addr4, 24), netip.PrefixFrom(addr6, 64)}
}

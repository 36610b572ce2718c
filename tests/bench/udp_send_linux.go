// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// udpSend compares sends: without anything, with a mark as SO_MARK sets it, and with
// metadata, that of each datagram another. The socket with an empty program says
// what the kernel's hook costs with any program.
func udpSend(m *meter) ([]Row, error) {
	l, err := m.produced()
	if err != nil {
		return nil, err
	}
	to, err := l.sink()
	if err != nil {
		return nil, err
	}
	nothing, _, err := l.empty(ebpf.CGroupSKB, ebpf.AttachCGroupInetEgress)
	if err != nil {
		return nil, err
	}
	plain, err := l.plainUDP(nil)
	if err != nil {
		return nil, err
	}
	again, err := l.plainUDP(nil)
	if err != nil {
		return nil, err
	}
	hooked, err := l.plainUDP(nothing)
	if err != nil {
		return nil, err
	}
	with, err := l.udp()
	if err != nil {
		return nil, err
	}
	without, err := l.udp()
	if err != nil {
		return nil, err
	}
	payload := make([]byte, 64)
	mark := cmsg.Append(nil, unix.SOL_SOCKET, unix.SO_MARK, binary.NativeEndian.AppendUint32(nil, 1))
	marked := func(name string, c *net.UDPConn) contender {
		return contender{name: name, batch: each(func() error {
			_, _, err := c.WriteMsgUDPAddrPort(payload, mark, to)
			return err
		})}
	}
	unmarked := func(name string, c interface {
		WriteToUDPAddrPort([]byte, netip.AddrPort) (int, error)
	}) contender {
		return contender{name: name, batch: each(func() error {
			_, err := c.WriteToUDPAddrPort(payload, to)
			return err
		})}
	}
	s, err := m.compare(1,
		marked("mark", plain), marked("hooked mark", hooked),
		contender{name: "metadata", batch: metadataWrites(with, payload, to)},
		unmarked("plain", plain), unmarked("hooked", hooked), unmarked("without", without),
		unmarked("again", again),
	)
	if err != nil {
		return nil, err
	}
	const withMark = "WriteMsgUDPAddrPort with SO_MARK, no program"
	return []Row{
		s.faster("udp-send/metadata", "UDP send with metadata", withMark, atLeast(0.95), "metadata", "mark"),
		s.faster("udp-send/empty-mark", "SO_MARK in a cgroup with an empty program", withMark, nil, "hooked mark", "mark"),
		s.faster("udp-send/without", "UDP send without metadata, opted in", "plain send, no program",
			atLeast(0.99), "without", "plain"),
		s.faster("udp-send/empty", "plain send in a cgroup with an empty program", "plain send, no program",
			nil, "hooked", "plain"),
		s.faster("udp-send/itself", "plain send", itself, nil, "again", "plain"),
	}, nil
}

// metadataWrites sends a batch of datagrams, each with a record of its own.
func metadataWrites(c *sockmeta.UDPConn, payload []byte, to netip.AddrPort) func() error {
	var md sockmeta.Metadata
	var id uint64
	return each(func() error {
		id++
		if err := md.SetUint64(sockmeta.KeyUser, id); err != nil {
			return err
		}
		_, err := c.WriteMetadata(payload, &md, to)
		return err
	})
}

// sink returns an address of the client that takes what is sent there, and drops
// it where it would wait.
func (l *lab) sink() (netip.AddrPort, error) {
	var c *net.UDPConn
	err := l.Client.Do(func() (err error) {
		c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(l.ClientAddr4, 0)))
		return err
	})
	if err != nil {
		return netip.AddrPort{}, err
	}
	l.m.atEnd(c.Close)
	return c.LocalAddr().(*net.UDPAddr).AddrPort(), c.SetReadBuffer(1)
}

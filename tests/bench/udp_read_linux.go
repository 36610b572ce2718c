// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"net"

	"github.com/sockmeta/sockmeta-go/sockmeta"
)

var errNoHandle = errors.New("a datagram without handle")

// udpRead compares reads from a queue of datagrams that all have metadata: without
// a word about it, and with ReadMetadata.
func udpRead(m *meter) ([]Row, error) {
	l, err := m.produced()
	if err != nil {
		return nil, err
	}
	single, err := l.singleRead()
	if err != nil {
		return nil, err
	}
	metadata, err := l.metadataRead()
	if err != nil {
		return nil, err
	}
	again, err := l.singleRead()
	if err != nil {
		return nil, err
	}
	again.name = "again"
	handle, err := l.handleRead()
	if err != nil {
		return nil, err
	}
	s, err := m.compare(1, single, metadata, again, handle)
	if err != nil {
		return nil, err
	}
	return []Row{
		s.faster("udp-read/plain", "UDP read with metadata, one at a time",
			singlePlain, atLeast(0.95), "metadata", "single"),
		s.faster("udp-read/handle", "UDP read of the handle alone, the record not looked at",
			singlePlain, nil, "handle", "single"),
		s.faster("udp-read/itself", "UDP read, plain", itself, nil, "again", "single"),
	}, nil
}

// singlePlain is how datagrams are read without metadata.
const singlePlain = "ReadMsgUDPAddrPort of net.UDPConn, without any"

// itself is what another socket of the same kind is compared with: how far from 1
// the ratio is says what this machine can tell apart.
const itself = "itself, by another socket"

// singleRead is what applications do without metadata.
func (l *lab) singleRead() (contender, error) {
	c, err := l.plainUDP(nil)
	if err != nil {
		return contender{}, err
	}
	buf := make([]byte, 2048)
	return l.waiting("single", c, each(func() error {
		_, _, _, _, err := c.ReadMsgUDPAddrPort(buf, nil)
		return err
	}))
}

func (l *lab) metadataRead() (contender, error) {
	c, err := l.udp()
	if err != nil {
		return contender{}, err
	}
	buf := make([]byte, 2048)
	var md sockmeta.Metadata
	return l.waiting("metadata", c, each(func() error {
		_, _, err := c.ReadMetadata(buf, &md)
		return err
	}))
}

// handleRead reads the control message with the handle as package net does, which is
// what the kernel and net take for it.
func (l *lab) handleRead() (contender, error) {
	c, err := l.udp()
	if err != nil {
		return contender{}, err
	}
	plain := c.NetConn().(*net.UDPConn)
	buf, oob := make([]byte, 2048), make([]byte, 128)
	return l.waiting("handle", c, each(func() error {
		_, n, _, _, err := plain.ReadMsgUDPAddrPort(buf, oob)
		if err == nil && n == 0 {
			err = errNoHandle
		}
		return err
	}))
}

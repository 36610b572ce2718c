// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"net"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/conn"
)

const (
	// groSegment is the size of a QUIC packet, and groTrain how many of them are
	// sent by one call.
	groSegment = 1200
	groTrain   = 50
)

// udpGRO compares reads of segments that were sent by one call (UDP_SEGMENT): kept
// together up to our socket (UDP_GRO), and cut in the kernel for one without.
func udpGRO(m *meter) ([]Row, error) {
	l, err := m.bare()
	if err != nil {
		return nil, err
	}
	plain, err := l.plainUDP(nil)
	if err != nil {
		return nil, err
	}
	xnet, err := l.trains("x/net", plain, readBatches(ipv4.NewPacketConn(plain), groTrain, groTrain))
	if err != nil {
		return nil, err
	}
	contenders := []contender{xnet}
	for _, side := range []struct {
		name      string
		mode      conn.Segments
		size, buf int
	}{{"split", conn.SegmentsSplit, groTrain, 2048}, {"whole", conn.SegmentsWhole, 1, 1 << 16}} {
		c, err := l.udp()
		if err != nil {
			return nil, err
		}
		if err := c.SetGRO(side.mode); err != nil {
			return nil, err
		}
		read, err := l.trains(side.name, c, readMetadataBatches(c, groTrain, side.size, side.buf))
		if err != nil {
			return nil, err
		}
		contenders = append(contenders, read)
	}
	s, err := m.compare(1, contenders...)
	if err != nil {
		return nil, err
	}
	const what = "UDP GRO read with metadata"
	return []Row{
		s.faster("udp-gro/split", what+", 1200 bytes, split", xnetBatch, atLeast(3), "split", "x/net"),
		s.faster("udp-gro/whole", what+", 1200 bytes, whole", xnetBatch, nil, "whole", "x/net"),
	}, nil
}

// trains returns a contender that reads a train of segments.
func (l *lab) trains(name string, c packetConn, read func() error) (contender, error) {
	client, err := l.dial(c.LocalAddr())
	if err != nil {
		return contender{}, err
	}
	payload := make([]byte, groTrain*groSegment)
	oob := cmsg.Append(nil, unix.SOL_UDP, unix.UDP_SEGMENT, binary.NativeEndian.AppendUint16(nil, groSegment))
	send := func() error {
		_, _, err := client.(*net.UDPConn).WriteMsgUDP(payload, oob, nil)
		return err
	}
	fill, err := l.m.filler(c, send, read)
	return contender{name: name, ops: groTrain, prepare: fill, batch: read}, err
}

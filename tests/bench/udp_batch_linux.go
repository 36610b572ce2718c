// SPDX-License-Identifier: Apache-2.0

package main

import (
	"golang.org/x/net/ipv4"

	"github.com/sockmeta/sockmeta-go/conn"
)

// udpBatch compares reads of many datagrams by one system call: with the metadata of
// each, without by golang.org/x/net, and, as in udpRead, one at a time.
func udpBatch(m *meter) ([]Row, error) {
	l, err := m.produced()
	if err != nil {
		return nil, err
	}
	single, err := l.singleRead()
	if err != nil {
		return nil, err
	}
	plain, err := l.plainUDP(nil)
	if err != nil {
		return nil, err
	}
	xnet, err := l.waiting("x/net", plain, readBatches(ipv4.NewPacketConn(plain), batchSize, batchSize))
	if err != nil {
		return nil, err
	}
	c, err := l.udp()
	if err != nil {
		return nil, err
	}
	ours, err := l.waiting("ours", c, readBatches(c, batchSize, batchSize))
	if err != nil {
		return nil, err
	}
	c, err = l.udp()
	if err != nil {
		return nil, err
	}
	metadata, err := l.waiting("metadata", c, readMetadataBatches(c, batchSize, batchSize, 2048))
	if err != nil {
		return nil, err
	}
	s, err := m.compare(1, single, xnet, ours, metadata)
	if err != nil {
		return nil, err
	}
	const what = "UDP read of 64 with metadata, ReadBatchMetadata"
	return []Row{
		s.faster("udp-batch/single", what, singlePlain, atLeast(1.7), "metadata", "single"),
		s.faster("udp-batch/xnet", what, xnetBatch, atLeast(0.95), "metadata", "x/net"),
		s.faster("udp-batch/readbatch", "UDP read of 64 without metadata, ReadBatch, opted in",
			xnetBatch, nil, "ours", "x/net"),
		s.faster("udp-batch/xnet-single", xnetBatch, singlePlain, nil, "x/net", "single"),
	}, nil
}

// xnetBatch is how datagrams are read by batches without metadata.
const xnetBatch = "ReadBatch of golang.org/x/net, without any"

// batchReader is what golang.org/x/net's PacketConn and ours have.
type batchReader interface {
	ReadBatch(ms []ipv4.Message, flags int) (int, error)
}

// readBatches returns a function that reads so many datagrams, of at most a few
// kilobytes, by batches of up to size.
func readBatches(c batchReader, datagrams, size int) func() error {
	ms := make([]ipv4.Message, size)
	for i := range ms {
		ms[i].Buffers = [][]byte{make([]byte, 2048)}
	}
	return func() error {
		for left := datagrams; left > 0; {
			n, err := c.ReadBatch(ms[:min(size, left)], 0)
			if err != nil {
				return err
			}
			left -= n
		}
		return nil
	}
}

// readMetadataBatches is readBatches with metadata. Without the metadata of a
// datagram it fails.
func readMetadataBatches(c *conn.UDPConn, datagrams, size, buf int) func() error {
	ms := make([]conn.Message, size)
	for i := range ms {
		ms[i].Buf = make([]byte, buf)
	}
	return func() error {
		for left := datagrams; left > 0; {
			n, err := c.ReadBatchMetadata(ms[:min(size, left)], 0)
			if err != nil {
				return err
			}
			for i := range ms[:n] {
				if err := ms[i].Err; err != nil {
					return err
				}
				left -= segments(&ms[i])
			}
		}
		return nil
	}
}

// segments is how many datagrams a message stands for.
func segments(m *conn.Message) int {
	if m.SegmentSize <= 0 || m.SegmentSize >= m.N {
		return 1
	}
	return (m.N + m.SegmentSize - 1) / m.SegmentSize
}

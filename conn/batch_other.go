// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package conn

import "golang.org/x/net/ipv4"

type (
	batchState struct{}
	groState   struct{}
)

func (c *UDPConn) readBatch(ms []ipv4.Message, flags int) (int, error) {
	return ipv4.NewPacketConn(c.udp).ReadBatch(ms[:1], flags)
}

func (c *UDPConn) writeBatch(ms []ipv4.Message, flags int) (int, error) {
	return ipv4.NewPacketConn(c.udp).WriteBatch(ms[:1], flags)
}

// readBatchMetadata reads one datagram; flags mean nothing to package net.
func (c *UDPConn) readBatchMetadata(ms []Message, _ int) (n int, err error) {
	m := &ms[0]
	m.Metadata.Reset()
	m.SegmentSize = 0
	m.N, m.NN, m.Flags, m.Addr, err = c.udp.ReadMsgUDPAddrPort(m.Buf, m.OOB)
	if err != nil {
		return 0, err
	}
	m.Err = c.errNotSupported
	return 1, nil
}

// writeBatchMetadata sends one datagram, without its metadata.
func (c *UDPConn) writeBatchMetadata(ms []Message, _ int) (n int, err error) {
	m := &ms[0]
	m.N, m.NN, err = c.writeMsg(m.Buf, m.OOB, destination{port: m.Addr})
	if err != nil {
		return 0, err
	}
	if m.Err = nil; !m.Metadata.IsEmpty() {
		m.Err = c.errNotSupported
	}
	return 1, nil
}

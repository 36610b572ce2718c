// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package conn

import "golang.org/x/net/ipv4"

type (
	batchState struct{}
	groState   struct{}
)

// readBatch reads one datagram; flags mean nothing to package net.
func (c *UDPConn) readBatch(ms batch, flags int) (n int, err error) {
	if ms.meta == nil {
		return ipv4.NewPacketConn(c.udp).ReadBatch(ms.plain[:1], flags)
	}
	m := &ms.meta[0]
	m.Metadata.Reset()
	m.SegmentSize = 0
	m.N, m.NN, m.Flags, m.Addr, err = c.udp.ReadMsgUDPAddrPort(m.Buf, m.OOB)
	if err != nil {
		return 0, err
	}
	m.Err = c.errNotSupported
	return 1, nil
}

func (c *UDPConn) writeBatch(ms []ipv4.Message, flags int) (int, error) {
	return ipv4.NewPacketConn(c.udp).WriteBatch(ms[:1], flags)
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

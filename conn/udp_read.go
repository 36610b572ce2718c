// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"net"
	"net/netip"

	"github.com/sockmeta/sockmeta-go/cmsg"
)

// Read reads a datagram from the remote address, or from any where there is
// none.
func (c *UDPConn) Read(b []byte) (int, error) {
	// net returns at once for an empty buffer, and leaves the datagram.
	if len(b) == 0 || !c.reads() {
		return c.plain().Read(b)
	}
	n, _, _, _, err := c.read(callRead, b, nil, nil)
	return n, err
}

// ReadFrom reads a datagram and returns its source, a *net.UDPAddr.
func (c *UDPConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, addr, err := c.readFromUDP(b, &net.UDPAddr{})
	if addr == nil {
		return n, nil, err
	}
	return n, addr, err
}

// ReadFromUDP is ReadFrom with a concrete address.
func (c *UDPConn) ReadFromUDP(b []byte) (n int, addr *net.UDPAddr, err error) {
	// Small enough to be inlined, so that an address that does not escape
	// the caller is not allocated.
	return c.readFromUDP(b, &net.UDPAddr{})
}

func (c *UDPConn) readFromUDP(b []byte, addr *net.UDPAddr) (int, *net.UDPAddr, error) {
	n, from, err := c.ReadFromUDPAddrPort(b)
	if !from.IsValid() {
		return n, nil, err
	}
	*addr = net.UDPAddr{IP: from.Addr().AsSlice(), Port: int(from.Port()), Zone: from.Addr().Zone()}
	return n, addr, err
}

// ReadFromUDPAddrPort reads a datagram and returns its source. Over IPv4 on a
// socket that is open for both families, the source is an IPv4-mapped IPv6
// address, as with net.UDPConn.
func (c *UDPConn) ReadFromUDPAddrPort(b []byte) (n int, addr netip.AddrPort, err error) {
	if !c.reads() {
		return c.plain().ReadFromUDPAddrPort(b)
	}
	n, _, _, addr, err = c.read(callRecvfrom, b, nil, nil)
	return n, addr, err
}

// ReadMsgUDP is ReadMsgUDPAddrPort with a *net.UDPAddr.
func (c *UDPConn) ReadMsgUDP(b, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error) {
	n, oobn, flags, from, err := c.ReadMsgUDPAddrPort(b, oob)
	if from.IsValid() {
		addr = net.UDPAddrFromAddrPort(from)
	}
	return n, oobn, flags, addr, err
}

// ReadMsgUDPAddrPort reads a datagram into b and its control messages into oob,
// as net.UDPConn.ReadMsgUDPAddrPort does: oob gets what the application asked
// for and nothing else, timestamps show the packet's time, and MSG_CTRUNC is
// set in flags when they did not fit.
//
// Where the application has asked for timestamps (SO_TIMESTAMP, SO_TIMESTAMPING)
// and the datagram's record was lost to newer packets (ErrOverrun), its software
// timestamp is lost, too, and left out.
func (c *UDPConn) ReadMsgUDPAddrPort(b, oob []byte) (n, oobn, flags int, addr netip.AddrPort, err error) {
	if !c.reads() {
		return c.plain().ReadMsgUDPAddrPort(b, oob)
	}
	return c.read(callRecvmsg, b, oob, nil)
}

// ReadMetadata reads a datagram into b and its metadata into md. It allocates
// nothing, and several goroutines may use it at the same time, each with a md
// of its own.
//
// The payload is delivered whatever becomes of the metadata: where err is
// ErrNoMetadata, ErrOverrun, ErrTruncated or ErrNotSupported (IsMetadataError), n and addr
// are those of a datagram, and md is empty. Other errors are those of
// net.UDPConn.ReadFromUDPAddrPort. Where md is nil, it is ReadFromUDPAddrPort.
func (c *UDPConn) ReadMetadata(b []byte, md *cmsg.Metadata) (n int, addr netip.AddrPort, err error) {
	if md == nil || !c.reads() {
		n, addr, err = c.ReadFromUDPAddrPort(b)
		if md != nil && c.ok() {
			md.Reset()
			if err == nil {
				err = c.carrier.recall(md)
			}
		}
		return n, addr, err
	}
	md.Reset()
	n, _, _, addr, err = c.read(callRecvfrom, b, nil, md)
	return n, addr, err
}

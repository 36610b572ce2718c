// SPDX-License-Identifier: Apache-2.0

package wgbind

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/cmsg"
)

// An Endpoint is a peer's address, and where datagrams to it leave from.
type Endpoint struct {
	dst netip.AddrPort
	// src is a control message, IP_PKTINFO or IPV6_PKTINFO, or nil.
	src []byte
}

// sourceOf returns the control message by which an answer leaves from where the
// datagram with the control messages oob was sent to.
func sourceOf(oob []byte) []byte {
	it := cmsg.Parse(oob)
	for m, ok := it.Next(); ok; m, ok = it.Next() {
		switch {
		case m.Level == unix.IPPROTO_IP && m.Type == unix.IP_PKTINFO && len(m.Data) == unix.SizeofInet4Pktinfo:
			return cmsg.Append(nil, unix.IPPROTO_IP, unix.IP_PKTINFO, m.Data)
		case m.Level == unix.IPPROTO_IPV6 && m.Type == unix.IPV6_PKTINFO && len(m.Data) == unix.SizeofInet6Pktinfo:
			// An IPv4 datagram has the other one, too.
			if !netip.AddrFrom16([16]byte(m.Data)).Is4In6() {
				return cmsg.Append(nil, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, m.Data)
			}
		}
	}
	return nil
}

// ClearSrc lets the kernel choose the source address again.
func (e *Endpoint) ClearSrc() { e.src = nil }

// SrcIP returns the source address, which is not valid where the kernel chooses.
func (e *Endpoint) SrcIP() netip.Addr {
	if b, ok := cmsg.Find(e.src, unix.IPPROTO_IP, unix.IP_PKTINFO); ok {
		return netip.AddrFrom4([4]byte(b[4:])) // ipi_spec_dst
	}
	if b, ok := cmsg.Find(e.src, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO); ok {
		return netip.AddrFrom16([16]byte(b))
	}
	return netip.Addr{}
}

// SrcToString returns SrcIP as text.
func (e *Endpoint) SrcToString() string { return e.SrcIP().String() }

// DstToString returns the peer's address with the port.
func (e *Endpoint) DstToString() string { return e.dst.String() }

// DstToBytes returns the peer's address with the port.
func (e *Endpoint) DstToBytes() []byte {
	b, _ := e.dst.MarshalBinary()
	return b
}

// DstIP returns the peer's address.
func (e *Endpoint) DstIP() netip.Addr { return e.dst.Addr() }

// SPDX-License-Identifier: Apache-2.0

package sockmeta

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
)

// defaultPeers is PeerOptions.Peers where it is not set.
const defaultPeers = 4096

// PeerOptions say what a PeerConn remembers. The zero value works.
type PeerOptions struct {
	// Peers is how many peers are remembered at most; 0 is 4096. Each takes
	// about 800 bytes, from its first datagram on.
	Peers int
}

// A PeerConn is a UDPConn that remembers the metadata of the first and of the
// newest datagram of each peer, for libraries that read the socket themselves and
// tell their users no more than the peer's address: QUIC, DTLS, ICE. Its methods
// are those of UDPConn, and whichever of them reads, it remembers.
//
// A peer is a source address and port, and what is remembered is about that and
// not about a connection of the protocol above:
//
//   - LatestMetadata is of the datagram that the library read last. It reads
//     ahead, in batches and on a goroutine of its own, so that this may be a later
//     one than the datagram that its user is being told of, but never one of
//     another peer.
//   - OpeningMetadata is of the first datagram since the peer became known. Where
//     another connection comes from the same port it is still the old one's:
//     Forget the peer when its connection ends.
//   - A connection that migrates (QUIC) is a peer with the old address, and
//     another with the new one.
//   - Source addresses may be forged. Whoever can send from many pushes out the
//     peers that have been silent longest, and has a peer's newest datagram be
//     one of his. Memory is bounded by PeerOptions.Peers. What must not be lost is
//     to be copied when the connection begins.
//
// An IPv4 address is the same peer whether it is IPv4-mapped or not.
//
// Multiple goroutines may call its methods at the same time. A datagram of a peer
// that is known costs 100 to 200 ns more than with UDPConn and no allocation. It
// needs what UDPConn needs; without metadata it remembers why there is none.
type PeerConn struct {
	*UDPConn
	peers peerTable
}

// NewPeerConn returns a PeerConn on c, from which nothing else may read any more:
// what others read is not remembered.
func NewPeerConn(c *UDPConn, opts PeerOptions) *PeerConn {
	if opts.Peers <= 0 {
		opts.Peers = defaultPeers
	}
	p := &PeerConn{UDPConn: c}
	p.peers.init(opts.Peers)
	return p
}

// OpeningMetadata returns the metadata of the first datagram that came from the
// peer since it became known. The error is ErrNoMetadata where the peer is not
// known, because nothing was read from it or others have pushed it out, and else
// that of ReadMetadata for the datagram.
func (c *PeerConn) OpeningMetadata(peer netip.AddrPort) (Metadata, error) {
	if !c.ok() {
		return Metadata{}, syscall.EINVAL
	}
	opening, _, ok := c.peers.lookup(peer)
	return c.answer(peer, opening, ok)
}

// LatestMetadata returns the metadata of the newest datagram that was read from
// the peer. Its errors are those of OpeningMetadata.
func (c *PeerConn) LatestMetadata(peer netip.AddrPort) (Metadata, error) {
	if !c.ok() {
		return Metadata{}, syscall.EINVAL
	}
	_, latest, ok := c.peers.lookup(peer)
	return c.answer(peer, latest, ok)
}

func (c *PeerConn) answer(peer netip.AddrPort, got datagram, known bool) (Metadata, error) {
	if !known {
		local := c.LocalAddr()
		return Metadata{}, &net.OpError{
			Op: "metadata", Net: local.Network(), Source: local, Addr: net.UDPAddrFromAddrPort(peer), Err: ErrNoMetadata,
		}
	}
	return got.md, got.err
}

// Forget forgets the peer: its next datagram is the first one again.
func (c *PeerConn) Forget(peer netip.AddrPort) {
	if c.ok() {
		c.peers.forget(peer)
	}
}

// Peers returns how many peers are known.
func (c *PeerConn) Peers() int {
	if !c.ok() {
		return 0
	}
	return c.peers.len()
}

// ok says whether c is what NewPeerConn made of a connection. The other methods of
// zero values return what those of a zero UDPConn do, syscall.EINVAL.
func (c *PeerConn) ok() bool { return c != nil && isConn(c.UDPConn) }

// ReadMetadata is UDPConn.ReadMetadata.
func (c *PeerConn) ReadMetadata(b []byte, md *Metadata) (n int, addr netip.AddrPort, err error) {
	if !c.ok() {
		return 0, netip.AddrPort{}, syscall.EINVAL
	}
	if md == nil {
		md = new(Metadata)
	}
	n, addr, err = c.UDPConn.ReadMetadata(b, md)
	if err == nil || IsMetadataError(err) {
		c.peers.remember(addr, md, err)
	}
	return n, addr, err
}

// read is ReadMetadata for callers that did not ask for metadata. call is the
// system call that UDPConn's method names in errors.
func (c *PeerConn) read(call string, b []byte) (int, netip.AddrPort, error) {
	var md Metadata
	n, addr, err := c.ReadMetadata(b, &md)
	if err == nil || IsMetadataError(err) {
		return n, addr, nil
	}
	var s *os.SyscallError
	if errors.As(err, &s) {
		s.Syscall = call
	}
	return n, addr, err
}

// Read is UDPConn.Read.
func (c *PeerConn) Read(b []byte) (int, error) {
	// UDPConn returns at once for an empty buffer, and leaves the datagram.
	if c.ok() && len(b) == 0 {
		return c.UDPConn.Read(b)
	}
	n, _, err := c.read("read", b)
	return n, err
}

// ReadFrom is UDPConn.ReadFrom.
func (c *PeerConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, addr, err := c.ReadFromUDP(b)
	if addr == nil {
		return n, nil, err
	}
	return n, addr, err
}

// ReadFromUDP is UDPConn.ReadFromUDP.
func (c *PeerConn) ReadFromUDP(b []byte) (int, *net.UDPAddr, error) {
	n, addr, err := c.read("recvfrom", b)
	if !addr.IsValid() {
		return n, nil, err
	}
	return n, net.UDPAddrFromAddrPort(addr), err
}

// ReadFromUDPAddrPort is UDPConn.ReadFromUDPAddrPort.
func (c *PeerConn) ReadFromUDPAddrPort(b []byte) (n int, addr netip.AddrPort, err error) {
	return c.read("recvfrom", b)
}

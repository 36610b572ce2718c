// SPDX-License-Identifier: Apache-2.0

package sockmeta

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/cmsg"
)

// packetInfoSpace has room for both kinds of packet information, which an IPv6
// socket gives for IPv4 datagrams.
const packetInfoSpace = 2*cmsg.HeaderLen + 16 + 24

// receivePacketInfo has datagrams come with the address that they were sent to. A
// socket with an address of its own needs none: nothing else is sent to it, nor can
// it send from another.
func receivePacketInfo(c *UDPConn) error {
	if local, ok := c.LocalAddr().(*net.UDPAddr); !ok || !local.IP.IsUnspecified() {
		return nil
	}
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	cerr := rc.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		if err == nil {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
			if err == unix.ENOPROTOOPT || err == unix.EOPNOTSUPP {
				err = nil // an IPv4 socket
			}
		}
	})
	if cerr != nil {
		return cerr
	}
	return os.NewSyscallError("setsockopt", err)
}

// sentTo takes the address that a reply can come from out of a control message.
func (q *question) sentTo(m cmsg.Message) {
	switch {
	case m.Level == unix.IPPROTO_IP && m.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
		// struct in_pktinfo: ipi_ifindex, ipi_spec_dst, ipi_addr. The second is
		// the address of the packet, or one of this host's where it went to a
		// multicast or broadcast address (fib_compute_spec_dst).
		q.local = netip.AddrFrom4([4]byte(m.Data[4:8]))
	case m.Level == unix.IPPROTO_IPV6 && m.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
		// struct in6_pktinfo: ipi6_addr, ipi6_ifindex. For IPv4 datagrams there is
		// the other message, too.
		local := netip.AddrFrom16([16]byte(m.Data))
		if local.Is4In6() || local.IsMulticast() {
			return
		}
		q.local = local
		if local.IsLinkLocalUnicast() {
			q.ifindex = binary.NativeEndian.Uint32(m.Data[16:])
		}
	}
}

// appendSource appends the control message that sends from where the question was
// sent to.
func (q *question) appendSource(oob []byte) []byte {
	if q.local.Is4() {
		var info [unix.SizeofInet4Pktinfo]byte
		copy(info[4:8], q.local.AsSlice())
		return cmsg.Append(oob, unix.IPPROTO_IP, unix.IP_PKTINFO, info[:])
	}
	var info [unix.SizeofInet6Pktinfo]byte
	copy(info[:], q.local.AsSlice())
	binary.NativeEndian.PutUint32(info[16:], q.ifindex)
	return cmsg.Append(oob, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, info[:])
}

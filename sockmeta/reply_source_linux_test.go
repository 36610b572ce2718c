// SPDX-License-Identifier: Apache-2.0

package sockmeta

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/cmsg"
)

func packetInfo4(spec, dst string) []byte {
	var info [unix.SizeofInet4Pktinfo]byte
	binary.NativeEndian.PutUint32(info[:], 3)
	copy(info[4:], netip.MustParseAddr(spec).AsSlice())
	copy(info[8:], netip.MustParseAddr(dst).AsSlice())
	return cmsg.Append(nil, unix.IPPROTO_IP, unix.IP_PKTINFO, info[:])
}

func packetInfo6(dst string) []byte {
	var info [unix.SizeofInet6Pktinfo]byte
	addr := netip.MustParseAddr(dst).As16()
	copy(info[:], addr[:])
	binary.NativeEndian.PutUint32(info[16:], 3)
	return cmsg.Append(nil, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, info[:])
}

// TestSentTo reads the kernel's control messages, in either order.
func TestSentTo(t *testing.T) {
	for name, tt := range map[string]struct {
		oob     [][]byte
		local   string // "": none
		ifindex uint32
	}{
		"none":       {},
		"IPv4":       {[][]byte{packetInfo4("192.0.2.1", "192.0.2.1")}, "192.0.2.1", 0},
		"broadcast":  {[][]byte{packetInfo4("192.0.2.1", "192.0.2.255")}, "192.0.2.1", 0},
		"dual":       {[][]byte{packetInfo4("192.0.2.1", "192.0.2.1"), packetInfo6("::ffff:192.0.2.1")}, "192.0.2.1", 0},
		"dual, all":  {[][]byte{packetInfo4("192.0.2.1", "224.0.0.1"), packetInfo6("::ffff:224.0.0.1")}, "192.0.2.1", 0},
		"IPv6":       {[][]byte{packetInfo6("2001:db8::1")}, "2001:db8::1", 0},
		"link-local": {[][]byte{packetInfo6("fe80::1")}, "fe80::1", 3},
		"multicast":  {[][]byte{packetInfo6("ff02::fb")}, "", 0},
		"foreign":    {[][]byte{cmsg.Append(nil, unix.SOL_SOCKET, unix.IP_PKTINFO, make([]byte, 12))}, "", 0},
		"short": {[][]byte{
			cmsg.Append(nil, unix.IPPROTO_IP, unix.IP_PKTINFO, make([]byte, 11)),
			cmsg.Append(nil, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, make([]byte, 19)),
		}, "", 0},
	} {
		for range 2 {
			var q question
			for m := range cmsg.All(slices.Concat(tt.oob...)) {
				q.sentTo(m)
			}
			var want netip.Addr
			if tt.local != "" {
				want = netip.MustParseAddr(tt.local)
			}
			if q.local != want || q.ifindex != tt.ifindex {
				t.Errorf("%s: answers leave from %v, interface %d, want %v, %d", name, q.local, q.ifindex, want, tt.ifindex)
			}
			slices.Reverse(tt.oob)
		}
	}
}

// TestAppendSource writes what the kernel takes: the address is ipi_spec_dst or
// ipi6_addr, and the interface is named where the address needs it.
func TestAppendSource(t *testing.T) {
	for _, tt := range []struct {
		q    question
		want []byte
	}{
		{question{local: netip.MustParseAddr("192.0.2.1")}, packetInfo4("192.0.2.1", "0.0.0.0")},
		{question{local: netip.MustParseAddr("fe80::1"), ifindex: 3}, packetInfo6("fe80::1")},
	} {
		var oob [packetInfoSpace]byte
		got := tt.q.appendSource(oob[:0])
		if tt.q.local.Is4() {
			// No interface: the route decides.
			binary.NativeEndian.PutUint32(tt.want[cmsg.HeaderLen:], 0)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%v: %x, want %x", tt.q.local, got, tt.want)
		}
	}
}

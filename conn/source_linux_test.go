// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// receivedFrom is a batch of one message from an address.
func receivedFrom(from netip.AddrPort) *mmsg {
	m := newMmsg(1, 0, 0)
	m.destinationPort(0, from)
	if from.Addr().Is4In6() {
		// The kernel's form on a socket of both families; what is sent takes
		// the other.
		name := (*[unix.SizeofSockaddrInet6]byte)(unsafe.Pointer(&m.names[0]))
		clear(name[:])
		ip := from.Addr().As16()
		binary.NativeEndian.PutUint16(name[:], unix.AF_INET6)
		binary.BigEndian.PutUint16(name[2:], from.Port())
		copy(name[8:], ip[:])
		m.hdrs[0].hdr.Namelen = unix.SizeofSockaddrInet6
	}
	return m
}

// TestSources has addresses in package net's form, the same ones for the same peer,
// and not more than it may keep.
func TestSources(t *testing.T) {
	var s sources
	for _, from := range []string{"192.0.2.1:1", "192.0.2.1:2", "192.0.2.2:1", "[2001:db8::1]:1", "[2001:db8::2]:1", "[::ffff:192.0.2.1]:1"} {
		want := netip.MustParseAddrPort(from)
		m := receivedFrom(want)
		e := s.from(m, 0)
		if e == nil || e.port != want || !slices.Equal(e.udp.IP, want.Addr().AsSlice()) || e.udp.Port != int(want.Port()) || e.udp.Zone != "" {
			t.Errorf("%s: %+v", from, e)
		}
		if again := s.from(m, 0); again != e {
			t.Errorf("%s: another one for the same peer", from)
		}
		// What the kernel left in the rest of the buffer is not part of an address.
		if want.Addr().Is4() {
			name := (*[unix.SizeofSockaddrInet6]byte)(unsafe.Pointer(&m.names[0]))
			name[8], name[20], name[27] = 1, 2, 3
			if again := s.from(m, 0); again != e {
				t.Errorf("%s: not found again", from)
			}
		}
		m.release()
	}

	m := receivedFrom(netip.MustParseAddrPort("192.0.2.1:1"))
	for _, size := range []uint32{0, 1, unix.SizeofSockaddrInet4 - 1} {
		m.hdrs[0].hdr.Namelen = size
		if e := s.from(m, 0); e != nil || e.addrPort().IsValid() {
			t.Errorf("from %d bytes: %+v", size, e)
		}
	}
	m.release()

	for port := range 5 * maxSources {
		want := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(port)}), uint16(port))
		m := receivedFrom(want)
		if e := s.from(m, 0); e.port != want {
			t.Fatalf("%v: %+v", want, e)
		}
		m.release()
	}
	if n := len(*s.table.Load()); n != maxSources {
		t.Errorf("there is room for %d, want %d", n, maxSources)
	}
	m = receivedFrom(netip.MustParseAddrPort("192.0.2.1:1"))
	defer m.release()
	if allocs := testing.AllocsPerRun(10, func() { s.from(m, 0) }); allocs != 0 {
		t.Errorf("%v allocations for one that is known", allocs)
	}
}

// TestSourcesGrow keeps those that are few.
func TestSourcesGrow(t *testing.T) {
	var s sources
	seen := make(map[netip.AddrPort]*source)
	for i := range 2 * minSources {
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), 443)
		m := receivedFrom(from)
		seen[from] = s.from(m, 0)
		m.release()
	}
	for from, e := range seen {
		m := receivedFrom(from)
		if got := s.from(m, 0); got != e {
			t.Errorf("%v was forgotten", from)
		}
		m.release()
	}
}

// TestDestinations has struct sockaddr_in and sockaddr_in6.
func TestDestinations(t *testing.T) {
	sockaddr := func(m *mmsg) []byte {
		h := &m.hdrs[0].hdr
		if h.Name == nil {
			return nil
		}
		return unsafe.Slice(h.Name, h.Namelen)
	}
	in4 := append(binary.NativeEndian.AppendUint16(nil, unix.AF_INET), 0x12, 0x34, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0)
	ip6 := netip.MustParseAddr("2001:db8::1").As16()
	in6 := append(binary.NativeEndian.AppendUint16(nil, unix.AF_INET6), 0x12, 0x34, 0, 0, 0, 0)
	in6 = append(append(in6, ip6[:]...), 0, 0, 0, 0)
	for _, tt := range []struct {
		name string
		addr net.Addr
		port netip.AddrPort
		want []byte
	}{
		{"IPv4", &net.UDPAddr{IP: net.IP{192, 0, 2, 1}, Port: 0x1234}, netip.MustParseAddrPort("192.0.2.1:4660"), in4},
		{"IPv4 of 16 bytes", &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 0x1234}, netip.MustParseAddrPort("[::ffff:192.0.2.1]:4660"), in4},
		{"IPv6", &net.UDPAddr{IP: ip6[:], Port: 0x1234}, netip.MustParseAddrPort("[2001:db8::1]:4660"), in6},
		{"unknown zone", &net.UDPAddr{IP: ip6[:], Port: 0x1234, Zone: "no-such-if"}, netip.MustParseAddrPort("[2001:db8::1%no-such-if]:4660"), in6},
		{"nothing", nil, netip.AddrPort{}, nil},
		{"nil", (*net.UDPAddr)(nil), netip.AddrPort{}, nil},
		{"no IP", &net.UDPAddr{Port: 0x1234}, netip.AddrPort{}, nil},
		{"of TCP", &net.TCPAddr{IP: net.IP{192, 0, 2, 1}, Port: 0x1234}, netip.MustParseAddrPort("192.0.2.1:4660"), in4},
		{"of another kind", &net.UnixAddr{Name: "x"}, netip.AddrPort{}, nil},
	} {
		for range 2 {
			m := newMmsg(1, 0, 0)
			m.destinationAddr(0, tt.addr)
			if got := sockaddr(m); !slices.Equal(got, tt.want) {
				t.Errorf("%s: % x, want % x", tt.name, got, tt.want)
			}
			m.release()
			m = newMmsg(1, 0, 0)
			m.destinationPort(0, tt.port)
			if got := sockaddr(m); !slices.Equal(got, tt.want) {
				t.Errorf("%s: AddrPort: % x, want % x", tt.name, got, tt.want)
			}
			// What one message left must not be another's.
			for i := range (*[unix.SizeofSockaddrInet6]byte)(unsafe.Pointer(&m.names[0])) {
				(*[unix.SizeofSockaddrInet6]byte)(unsafe.Pointer(&m.names[0]))[i] = 0xEE
			}
			m.release()
		}
	}
	if got := zones.index("12"); got != 12 {
		t.Errorf("zone 12 is %d", got)
	}
	if got := zones.name(1 << 30); got != "1073741824" {
		t.Errorf("zone 1<<30 is %q", got)
	}
}

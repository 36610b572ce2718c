// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"encoding/binary"
	"math/bits"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A source is an address that datagrams came from. It is never changed, so that
// callers may keep what it points to.
type source struct {
	key  sourceKey
	udp  *net.UDPAddr
	port netip.AddrPort
	// until is when the name of the zone has to be looked up again, zero where
	// there is none.
	until time.Time
}

// addrPort returns the zero AddrPort where the kernel gave no address.
func (s *source) addrPort() netip.AddrPort {
	if s == nil {
		return netip.AddrPort{}
	}
	return s.port
}

// udpAddr returns nil where the kernel gave no address.
func (s *source) udpAddr() net.Addr {
	if s == nil {
		return nil
	}
	return s.udp
}

// A sourceKey is the address as the kernel gives it.
type sourceKey struct{ high, low, rest uint64 }

func (k sourceKey) hash() uint64 {
	h := (k.high ^ bits.RotateLeft64(k.rest, 32)) * 0x9E3779B97F4A7C15
	h = (h ^ k.low) * 0xD6E8FEB86659FD93
	return h ^ h>>32
}

// sources are those that were seen last. They grow with the number of peers; one
// that is not found is made anew.
type sources struct {
	table atomic.Pointer[[]atomic.Pointer[source]]
}

const (
	minSources = 8
	maxSources = 1024
)

func (s *sources) find(k sourceKey) *source {
	t := s.table.Load()
	if t == nil {
		return nil
	}
	e := (*t)[k.hash()&uint64(len(*t)-1)].Load()
	if e == nil || e.key != k || !e.until.IsZero() && time.Now().After(e.until) {
		return nil
	}
	return e
}

// add adds a source. Of several goroutines that add, what one adds may be lost.
func (s *sources) add(e *source) {
	old := s.table.Load()
	if old == nil {
		t := make([]atomic.Pointer[source], minSources)
		old = &t
		s.table.Store(old)
	}
	for {
		place := &(*old)[e.key.hash()&uint64(len(*old)-1)]
		there := place.Load()
		if there == nil || there.key == e.key || len(*old) == maxSources {
			place.Store(e)
			return
		}
		t := make([]atomic.Pointer[source], 2*len(*old))
		for i := range *old {
			if there := (*old)[i].Load(); there != nil {
				t[there.key.hash()&uint64(len(t)-1)].Store(there)
			}
		}
		old = &t
		s.table.Store(old)
	}
}

// from returns the source of message i, nil where the kernel gave none.
func (s *sources) from(m *mmsg, i int) *source {
	name := (*[unix.SizeofSockaddrInet6]byte)(unsafe.Pointer(&m.names[i]))
	size := m.hdrs[i].hdr.Namelen
	family := binary.NativeEndian.Uint16(name[:])
	k := sourceKey{rest: uint64(family)<<16 | uint64(binary.BigEndian.Uint16(name[2:]))}
	switch {
	case family == unix.AF_INET && size >= unix.SizeofSockaddrInet4:
		k.low = uint64(binary.NativeEndian.Uint32(name[4:]))
	case family == unix.AF_INET6 && size >= unix.SizeofSockaddrInet6:
		k.high, k.low = binary.NativeEndian.Uint64(name[8:]), binary.NativeEndian.Uint64(name[16:])
		k.rest |= uint64(binary.NativeEndian.Uint32(name[24:])) << 32
	default:
		return nil
	}
	if e := s.find(k); e != nil {
		return e
	}
	e := newSource(k, name)
	s.add(e)
	return e
}

func newSource(k sourceKey, name *[unix.SizeofSockaddrInet6]byte) *source {
	e := &source{key: k}
	var addr netip.Addr
	if uint16(k.rest>>16) == unix.AF_INET {
		addr = netip.AddrFrom4([4]byte(name[4:8]))
	} else {
		addr = netip.AddrFrom16([16]byte(name[8:24]))
		if index := int(k.rest >> 32); index != 0 {
			addr = addr.WithZone(zones.name(index))
			e.until = time.Now().Add(zoneLife)
		}
	}
	e.port = netip.AddrPortFrom(addr, uint16(k.rest))
	e.udp = &net.UDPAddr{IP: addr.AsSlice(), Port: int(e.port.Port()), Zone: addr.Zone()}
	return e
}

// destination adds the address that message i goes to, none where the kernel is to
// take the peer's. An IPv4 address is one also where it is mapped to IPv6, which
// sockets of both families take.
func (m *mmsg) destination(i int, ip []byte, port int, zone string) {
	var size uint32
	h := &m.hdrs[i].hdr
	name := (*[unix.SizeofSockaddrInet6]byte)(unsafe.Pointer(&m.names[i]))
	if ip4 := net.IP(ip).To4(); ip4 != nil {
		binary.NativeEndian.PutUint16(name[:], unix.AF_INET)
		copy(name[4:8], ip4)
		clear(name[8:unix.SizeofSockaddrInet4])
		size = unix.SizeofSockaddrInet4
	} else if len(ip) == net.IPv6len {
		binary.NativeEndian.PutUint16(name[:], unix.AF_INET6)
		clear(name[4:8])
		copy(name[8:24], ip)
		var index int
		if zone != "" {
			index = zones.index(zone)
		}
		binary.NativeEndian.PutUint32(name[24:], uint32(index))
		size = unix.SizeofSockaddrInet6
	} else {
		return
	}
	binary.BigEndian.PutUint16(name[2:], uint16(port))
	h.Name, h.Namelen = &name[0], size
}

// destinationPort is destination for a netip.AddrPort.
func (m *mmsg) destinationPort(i int, to netip.AddrPort) {
	addr := to.Addr()
	switch {
	case !addr.IsValid():
	case addr.Is4():
		ip := addr.As4()
		m.destination(i, ip[:], int(to.Port()), "")
	default:
		ip := addr.As16()
		m.destination(i, ip[:], int(to.Port()), addr.Zone())
	}
}

// destinationAddr is destination for the addresses of package net.
func (m *mmsg) destinationAddr(i int, to net.Addr) {
	switch a := to.(type) {
	case *net.UDPAddr:
		if a != nil {
			m.destination(i, a.IP, a.Port, a.Zone)
		}
	case *net.TCPAddr:
		m.destination(i, a.IP, a.Port, a.Zone)
	case *net.IPAddr:
		m.destination(i, a.IP, 0, a.Zone)
	}
}

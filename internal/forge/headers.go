// SPDX-License-Identifier: Apache-2.0

package forge

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
)

// Ethertypes and IP protocols.
const (
	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd
	etherVLAN = 0x8100
	etherQinQ = 0x88a8
	etherTEB  = 0x6558 // transparent Ethernet bridging

	protoIPv4    = 4
	protoTCP     = 6
	protoUDP     = 17
	protoIPv6    = 41
	protoRouting = 43
	protoGRE     = 47
	protoDstOpts = 60
)

// Fields are those of the headers that nobody checks.
type Fields struct {
	TOS, TTL byte
	ID       uint16
	SrcPort  uint16
}

// Usual is what a host that means no harm would send.
var Usual = Fields{TTL: 64, SrcPort: 40000}

// TTL 0 and 1 are for no host to forward, and 0 is dropped.
func (f Fields) ttl() byte { return max(f.TTL, 1) }

func ethernet(to, from net.HardwareAddr, ethertype uint16, payload []byte) []byte {
	b := slices.Concat(to, from)
	return append(binary.BigEndian.AppendUint16(b, ethertype), payload...)
}

func etherTypeOf(ip []byte) uint16 {
	if ip[0]>>4 == 6 {
		return etherIPv6
	}
	return etherIPv4
}

func tag(id, ethertype uint16, payload []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, id)
	return append(binary.BigEndian.AppendUint16(b, ethertype), payload...)
}

// ipv4 puts a header with options, whose length is a multiple of 4, in front of a payload.
func ipv4(f Fields, from, to netip.Addr, proto byte, options, payload []byte) []byte {
	b := []byte{0x45 + byte(len(options)/4), f.TOS}
	b = binary.BigEndian.AppendUint16(b, uint16(20+len(options)+len(payload)))
	b = binary.BigEndian.AppendUint16(b, f.ID)
	b = append(b, 0, 0, f.ttl(), proto, 0, 0)
	b = slices.Concat(b, from.AsSlice(), to.AsSlice(), options)
	binary.BigEndian.PutUint16(b[10:], Checksum(b, 0))
	return append(b, payload...)
}

func ipv6(f Fields, from, to netip.Addr, next byte, payload []byte) []byte {
	b := []byte{0x60 | f.TOS>>4, f.TOS << 4, byte(f.ID >> 8), byte(f.ID)}
	b = binary.BigEndian.AppendUint16(b, uint16(len(payload)))
	b = append(b, next, f.ttl())
	return slices.Concat(b, from.AsSlice(), to.AsSlice(), payload)
}

// ip puts a header of the addresses' family in front of a UDP or TCP packet, and makes
// that one's checksum, which lies at an offset.
func ip(f Fields, from, to netip.Addr, proto byte, at int, payload []byte) []byte {
	sum := Checksum(slices.Concat(from.AsSlice(), to.AsSlice(), payload), uint32(proto)+uint32(len(payload)))
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(payload[at:], sum)
	if from.Is4() {
		return ipv4(f, from, to, proto, nil, payload)
	}
	return ipv6(f, from, to, proto, payload)
}

func udp(from, to uint16, payload []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, from)
	b = binary.BigEndian.AppendUint16(b, to)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(payload)))
	return append(append(b, 0, 0), payload...)
}

// UDP returns an IP packet with a datagram.
func UDP(f Fields, from, to netip.AddrPort, payload []byte) []byte {
	return ip(f, from.Addr(), to.Addr(), protoUDP, 6, udp(from.Port(), to.Port(), payload))
}

// TCP flags.
const (
	SYN = 1 << 1
	RST = 1 << 2
	PSH = 1 << 3
	ACK = 1 << 4
)

// A Segment is what differs between the TCP packets of one connection.
type Segment struct {
	Flags    byte
	Seq, Ack uint32
	Payload  []byte
}

// TCP returns an IP packet with a segment.
func TCP(f Fields, from, to netip.AddrPort, s Segment) []byte {
	b := binary.BigEndian.AppendUint16(nil, from.Port())
	b = binary.BigEndian.AppendUint16(b, to.Port())
	b = binary.BigEndian.AppendUint32(b, s.Seq)
	b = binary.BigEndian.AppendUint32(b, s.Ack)
	b = append(b, 5<<4, s.Flags, 0xff, 0xff, 0, 0, 0, 0)
	return ip(f, from.Addr(), to.Addr(), protoTCP, 16, append(b, s.Payload...))
}

// ParseTCP returns the segment in an Ethernet frame with IPv4, and its ports.
func ParseTCP(frame []byte) (from, to uint16, s Segment, ok bool) {
	if len(frame) < 54 || binary.BigEndian.Uint16(frame[12:]) != etherIPv4 || frame[23] != protoTCP {
		return 0, 0, s, false
	}
	b := frame[14+int(frame[14]&15)*4:]
	if len(b) < 20 {
		return 0, 0, s, false
	}
	s = Segment{Flags: b[13], Seq: binary.BigEndian.Uint32(b[4:]), Ack: binary.BigEndian.Uint32(b[8:])}
	return binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:]), s, true
}

// Checksum is the Internet checksum, RFC 1071, of b and of a sum so far.
func Checksum(b []byte, sum uint32) uint16 {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// last returns the last n bytes of b, with zeros in front where it is shorter.
func last(b []byte, n int) []byte {
	if len(b) > n {
		b = b[len(b)-n:]
	}
	return append(make([]byte, n-len(b)), b...)
}

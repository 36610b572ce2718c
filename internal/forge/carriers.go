// SPDX-License-Identifier: Apache-2.0

package forge

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
)

// Numbers that the receiver's devices are made with.
const (
	VLAN      = 5
	InnerVLAN = 6
	// VNI is, with the zero that follows it in the header, an anchor of sockmeta's
	// first layout.
	VNI        = 0xFF025B
	GREKey     = 0xFF025B00
	VXLANPort  = 4789
	VXLANMD    = 4790 // of devices that take any VNI
	GenevePort = 6081
	GeneveMD   = 6082
	FOUPort    = 5555
	GUEPort    = 6080
)

// Segment is the IPv6 address at which the receiver takes off the headers of segment
// routing: for IPv4 inside, and for IPv6.
var (
	Segment4 = netip.MustParseAddr("2001:db8:5::4")
	Segment6 = netip.MustParseAddr("2001:db8:5::6")
)

// Hosts are the forger's and the receiver's addresses on the link between them.
type Hosts struct {
	FromMAC, ToMAC net.HardwareAddr
	From4, To4     netip.Addr
	From6, To6     netip.Addr
	// TunnelMAC has the address of the carrier's device where frames are inside.
	TunnelMAC map[string]net.HardwareAddr
}

// link returns the frame with an IP packet that leaves by the link.
func (h *Hosts) link(ip []byte) []byte {
	return ethernet(h.ToMAC, h.FromMAC, etherTypeOf(ip), ip)
}

// outer4 and outer6 return the frame with a tunnel's packet.
func (h *Hosts) outer4(f Fields, proto byte, options, payload []byte) []byte {
	return h.link(ipv4(f, h.From4, h.To4, proto, options, payload))
}

func (h *Hosts) outer6(f Fields, next byte, payload []byte) []byte {
	return h.link(ipv6(f, h.From6, h.To6, next, payload))
}

// outerUDP leaves out the checksum.
func (h *Hosts) outerUDP(f Fields, port uint16, payload []byte) []byte {
	return h.outer4(f, protoUDP, nil, udp(f.SrcPort, port, payload))
}

// A Carrier is a way for an IP packet to the receiver.
type Carrier struct {
	Name string
	// Device is which of the receiver's devices takes the headers off; empty: that of
	// the link. Frames says that Ethernet frames are inside.
	Device string
	Frames bool
	// V6 says that the packet inside is an IPv6 one.
	V6 bool
	// Room is how many bytes of a text lie just in front of the packet inside, or of
	// its Ethernet header, when the headers are off.
	Room int
	wrap func(h *Hosts, f Fields, text, inner []byte) []byte
}

// Frame returns the Ethernet frame that brings an IP packet, with the end of a text in
// front of it.
func (c *Carrier) Frame(h *Hosts, f Fields, text, inner []byte) []byte {
	if c.Frames {
		inner = ethernet(h.TunnelMAC[c.Device], h.FromMAC, etherTypeOf(inner), inner)
	}
	return c.wrap(h, f, last(text, min(len(text), c.Room)), inner)
}

// The receiver's devices.
const (
	VLANDevice   = "vlan0"
	QinQDevice   = "qinq0"
	VXLANDevice  = "vxlan0"
	VXLANMDev    = "vxlan1"
	GeneveDevice = "geneve0"
	GeneveMDev   = "geneve1"
	TapDevice    = "gretap0k"
	TapMDev      = "gretap1"
	GREDevice    = "gre1"
	IPIPDevice   = "ipip0"
	SITDevice    = "sit1"
	IP6Device    = "ip6tnl1"
	SRv6         = "seg6local"
)

// areaRoom is that of the longest area.
const areaRoom = 252

// Carriers are all that there are.
var Carriers = []Carrier{
	{Name: "plain", wrap: func(h *Hosts, f Fields, _, inner []byte) []byte { return h.link(inner) }},
	{Name: "plain IPv6", V6: true, wrap: func(h *Hosts, f Fields, _, inner []byte) []byte { return h.link(inner) }},
	{Name: "trailer", Room: areaRoom, wrap: func(h *Hosts, f Fields, text, inner []byte) []byte {
		return append(h.link(inner), text...)
	}},
	{Name: "IP options", Room: optionsRoom, wrap: func(h *Hosts, f Fields, text, inner []byte) []byte {
		return h.link(withOptions(inner, text))
	}},
	{Name: "IPv6 options", V6: true, Room: areaRoom, wrap: func(h *Hosts, f Fields, text, inner []byte) []byte {
		return h.link(withDstOpts(inner, text))
	}},
	{Name: "VLAN 0", wrap: func(h *Hosts, f Fields, _, inner []byte) []byte {
		return ethernet(h.ToMAC, h.FromMAC, etherVLAN, tag(0, etherTypeOf(inner), inner))
	}},
	{Name: "VLAN", Device: VLANDevice, wrap: func(h *Hosts, f Fields, _, inner []byte) []byte {
		return ethernet(h.ToMAC, h.FromMAC, etherVLAN, tag(VLAN, etherTypeOf(inner), inner))
	}},
	{Name: "QinQ", Device: QinQDevice, wrap: func(h *Hosts, f Fields, _, inner []byte) []byte {
		return ethernet(h.ToMAC, h.FromMAC, etherVLAN, tag(VLAN, etherVLAN, tag(InnerVLAN, etherTypeOf(inner), inner)))
	}},
	{Name: "VXLAN", Device: VXLANDevice, Frames: true, wrap: func(h *Hosts, f Fields, _, inner []byte) []byte {
		return h.outerUDP(f, VXLANPort, vxlan(VNI, inner))
	}},
	{Name: "VXLAN, any VNI", Device: VXLANMDev, Frames: true, Room: 4, wrap: func(h *Hosts, f Fields, text, inner []byte) []byte {
		return h.outerUDP(f, VXLANMD, vxlan(binary.BigEndian.Uint32(last(text, 4))>>8, inner))
	}},
	{Name: "Geneve", Device: GeneveDevice, Frames: true, Room: areaRoom, wrap: func(h *Hosts, f Fields, text, inner []byte) []byte {
		return h.outerUDP(f, GenevePort, geneve(text, inner))
	}},
	{Name: "Geneve, any VNI", Device: GeneveMDev, Frames: true, Room: areaRoom, wrap: func(h *Hosts, f Fields, text, inner []byte) []byte {
		return h.outerUDP(f, GeneveMD, geneve(text, inner))
	}},
	// The last word is the sequence number, which nobody checks; the one in front the
	// key, which has to be the device's.
	{Name: "GRETAP", Device: TapDevice, Frames: true, Room: 4, wrap: func(h *Hosts, f Fields, text, inner []byte) []byte {
		return h.outer4(f, protoGRE, nil, gre(etherTEB, GREKey, last(text, 4), inner))
	}},
	{Name: "GRETAP, key alone", Device: TapDevice, Frames: true, wrap: func(h *Hosts, f Fields, _, inner []byte) []byte {
		return h.outer4(f, protoGRE, nil, gre(etherTEB, GREKey, nil, inner))
	}},
	{Name: "GRETAP, any key", Device: TapMDev, Frames: true, Room: 8, wrap: func(h *Hosts, f Fields, text, inner []byte) []byte {
		text = last(text, 8)
		return h.outer4(f, protoGRE, nil, gre(etherTEB, binary.BigEndian.Uint32(text), text[4:], inner))
	}},
	{Name: "GRE", Device: GREDevice, Room: 8, wrap: func(h *Hosts, f Fields, text, inner []byte) []byte {
		text = last(text, 8)
		return h.outer4(f, protoGRE, nil, gre(etherTypeOf(inner), binary.BigEndian.Uint32(text), text[4:], inner))
	}},
	{Name: "IPIP", Device: IPIPDevice, Room: optionsRoom, wrap: func(h *Hosts, f Fields, text, inner []byte) []byte {
		return h.outer4(f, protoIPv4, options(text), inner)
	}},
	{Name: "6in4", Device: SITDevice, V6: true, Room: optionsRoom, wrap: func(h *Hosts, f Fields, text, inner []byte) []byte {
		return h.outer4(f, protoIPv6, options(text), inner)
	}},
	{Name: "4in6", Device: IP6Device, Room: areaRoom, wrap: func(h *Hosts, f Fields, text, inner []byte) []byte {
		return h.outer6(f, protoDstOpts, dstOpts(protoIPv4, text, inner))
	}},
	{Name: "6in6", Device: IP6Device, V6: true, Room: areaRoom, wrap: func(h *Hosts, f Fields, text, inner []byte) []byte {
		return h.outer6(f, protoDstOpts, dstOpts(protoIPv6, text, inner))
	}},
	{Name: "FOU", Device: IPIPDevice, wrap: func(h *Hosts, f Fields, _, inner []byte) []byte {
		return h.outerUDP(f, FOUPort, inner)
	}},
	{Name: "GUE", Device: IPIPDevice, Room: gueRoom, wrap: func(h *Hosts, f Fields, text, inner []byte) []byte {
		return h.outerUDP(f, GUEPort, gue(text, inner))
	}},
	{Name: "SRv6, IPv4 inside", Device: SRv6, Room: areaRoom, wrap: func(h *Hosts, f Fields, text, inner []byte) []byte {
		return h.link(ipv6(f, h.From6, Segment4, protoRouting, srh(protoIPv4, Segment4, text, inner)))
	}},
	{Name: "SRv6, IPv6 inside", Device: SRv6, V6: true, Room: areaRoom, wrap: func(h *Hosts, f Fields, text, inner []byte) []byte {
		return h.link(ipv6(f, h.From6, Segment6, protoRouting, srh(protoIPv6, Segment6, text, inner)))
	}},
}

func vxlan(vni uint32, frame []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, 1<<27)
	return append(binary.BigEndian.AppendUint32(b, vni<<8), frame...)
}

// geneve has options, a multiple of 4, of any kind: the kernel does not look into them.
func geneve(opts, frame []byte) []byte {
	opts = last(opts, (len(opts)+3)&^3)
	b := binary.BigEndian.AppendUint16([]byte{byte(len(opts) / 4), 0}, etherTEB)
	b = binary.BigEndian.AppendUint32(b, VNI<<8)
	return slices.Concat(b, opts, frame)
}

// gre has a key and, unless it is nil, a sequence number.
func gre(proto uint16, key uint32, seq, payload []byte) []byte {
	flags := uint16(0x2000)
	if seq != nil {
		flags |= 0x1000
	}
	b := binary.BigEndian.AppendUint16(nil, flags)
	b = binary.BigEndian.AppendUint16(b, proto)
	return slices.Concat(binary.BigEndian.AppendUint32(b, key), seq, payload)
}

// optionsRoom is that of an IPv4 header, less an option's head.
const optionsRoom = 40 - 2

// options has the text in one option that the kernel does not know.
func options(text []byte) []byte {
	if len(text) == 0 {
		return nil
	}
	const unknown = 0x99
	size := (2 + len(text) + 3) &^ 3
	return append([]byte{unknown, byte(size)}, last(text, size-2)...)
}

// dstOpts has the text in one destination option that the kernel is to skip.
func dstOpts(next byte, text, payload []byte) []byte {
	const skip = 0x1e
	size := (4 + len(text) + 7) &^ 7
	b := []byte{next, byte(size/8 - 1), skip, byte(size - 4)}
	return slices.Concat(b, last(text, size-4), payload)
}

// withOptions and withDstOpts put the text into an IP packet's own header.
func withOptions(packet, text []byte) []byte {
	from, _ := netip.AddrFromSlice(packet[12:16])
	to, _ := netip.AddrFromSlice(packet[16:20])
	return ipv4(Fields{TTL: packet[8]}, from, to, packet[9], options(text), packet[20:])
}

func withDstOpts(packet, text []byte) []byte {
	from, _ := netip.AddrFromSlice(packet[8:24])
	to, _ := netip.AddrFromSlice(packet[24:40])
	return ipv6(Fields{TTL: packet[7]}, from, to, protoDstOpts, dstOpts(packet[6], text, packet[40:]))
}

// gueRoom is that of a header, whose length is counted in words by 5 bits.
const gueRoom = 31 * 4

// gue has the text where fields would be that no flag announces.
func gue(text, packet []byte) []byte {
	text = last(text, (len(text)+3)&^3)
	return slices.Concat([]byte{byte(len(text) / 4), protoIPv4, 0, 0}, text, packet)
}

// srh is a segment routing header with one segment, the last, and the text in one TLV.
func srh(next byte, segment netip.Addr, text, payload []byte) []byte {
	const unknown = 0xc8
	size := (2 + len(text) + 7) &^ 7
	b := []byte{next, byte((8+16+size)/8 - 1), 4, 0, 0, 0, 0, 0}
	b = append(append(b, segment.AsSlice()...), unknown, byte(size-2))
	return slices.Concat(b, last(text, size-2), payload)
}

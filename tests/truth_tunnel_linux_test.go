// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/forge"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
)

// tunnelAddr is the server's address inside the tunnels.
var tunnelAddr = netip.MustParsePrefix("198.51.100.2/24")

// publicAnchor, as a VNI: what ended an area of older versions. As a number.
const publicAnchor = 0xFF025B

// A forgedTunnel is a tunnel to the server, and what a host that sends through it makes
// of a packet. The bytes that it chooses come to lie in front of the packet inside.
type forgedTunnel struct {
	name   string
	tunnel netlab.Tunnel
	ether  bool // it carries Ethernet frames
	// wrap returns the outer packet's protocol and payload, up to the packet inside.
	wrap func(inside []byte, chosen []byte) (proto byte, payload []byte)
	// options are the IPv4 header's.
	options func(chosen []byte) []byte
	// distance is how far in front of the packet inside the area of the outer one ends;
	// 0: it is not found.
	distance int
	// either: it is found as it was, or not at all. A tag inside makes a mess of what lies in
	// front of it, by the length of the area, and options may be as long as other headers.
	either bool
}

func forgedTunnels(p *netlab.Pair) []forgedTunnel {
	v4 := netlab.Tunnel{Local: p.ServerAddr4, Remote: p.ClientAddr4, ID: publicAnchor}
	v6 := netlab.Tunnel{Local: p.ServerAddr6, Remote: p.ClientAddr6, ID: publicAnchor}
	of := func(t netlab.Tunnel, kind string) netlab.Tunnel {
		t.Kind = kind
		return t
	}
	external := func(t netlab.Tunnel) netlab.Tunnel {
		t.External = true
		return t
	}
	key := func(t netlab.Tunnel) netlab.Tunnel {
		t.ID = publicAnchor << 8
		return t
	}
	noKey := func(t netlab.Tunnel) netlab.Tunnel {
		t.ID = 0
		return t
	}
	vni := binary.BigEndian.AppendUint32(nil, publicAnchor<<8)
	overUDP := func(port uint16, header []byte) func([]byte, []byte) (byte, []byte) {
		return func(inside, _ []byte) (byte, []byte) {
			return unix.IPPROTO_UDP, udpTo(port, slices.Concat(header, inside))
		}
	}
	vxlan := overUDP(4789, slices.Concat([]byte{8, 0, 0, 0}, vni))
	tagged := func(inside, _ []byte) (byte, []byte) {
		// A priority tag, for which no VLAN device is needed.
		frame := slices.Concat(inside[:12], []byte{0x81, 0, 0, 0}, inside[12:])
		return vxlan(frame, nil)
	}
	geneve := overUDP(6081, slices.Concat([]byte{0, 0, 0x65, 0x58}, vni))
	geneveOptions := func(inside, chosen []byte) (byte, []byte) {
		header := []byte{byte(1 + len(chosen)/4), 0, 0x65, 0x58}
		option := []byte{0x01, 0x02, 1, byte(len(chosen) / 4)}
		return unix.IPPROTO_UDP, udpTo(6081, slices.Concat(header, vni, option, chosen, inside))
	}
	gre := func(proto uint16, key bool) func([]byte, []byte) (byte, []byte) {
		return func(inside, _ []byte) (byte, []byte) {
			header := []byte{0, 0, byte(proto >> 8), byte(proto)}
			if key {
				header[0] = greHasKey
				header = append(header, vni...)
			}
			return unix.IPPROTO_GRE, append(header, inside...)
		}
	}
	plain := func(proto byte) func([]byte, []byte) (byte, []byte) {
		return func(inside, _ []byte) (byte, []byte) { return proto, inside }
	}
	unknownOption := func(chosen []byte) []byte {
		return slices.Concat([]byte{0x9e, byte(4 + len(chosen)), 0, 0}, chosen)
	}
	return []forgedTunnel{
		{name: "VXLAN", tunnel: of(v4, "vxlan"), ether: true, wrap: vxlan, distance: 50},
		{name: "VXLAN, any VNI", tunnel: external(of(v4, "vxlan")), ether: true, wrap: vxlan, distance: 50},
		{name: "VXLAN, tagged inside", tunnel: of(v4, "vxlan"), ether: true, wrap: tagged, either: true},
		{name: "VXLAN over IPv6", tunnel: of(v6, "vxlan"), ether: true, wrap: vxlan, distance: 70},
		{name: "Geneve", tunnel: of(v4, "geneve"), ether: true, wrap: geneve, distance: 50},
		{name: "Geneve with options", tunnel: of(v4, "geneve"), ether: true, wrap: geneveOptions, either: true},
		{name: "Geneve with options, any VNI", tunnel: external(of(v4, "geneve")), ether: true, wrap: geneveOptions, either: true},
		{name: "Geneve over IPv6", tunnel: of(v6, "geneve"), ether: true, wrap: geneve, distance: 70},
		{name: "GRE", tunnel: noKey(of(v4, "gre")), wrap: gre(unix.ETH_P_IP, false), distance: 38},
		{name: "GRE with key", tunnel: key(of(v4, "gre")), wrap: gre(unix.ETH_P_IP, true), distance: 42},
		{name: "GRE with key, Ethernet", tunnel: key(of(v4, "gretap")), ether: true, wrap: gre(unix.ETH_P_TEB, true), distance: 42},
		{name: "GRE with key over IPv6", tunnel: key(of(v6, "ip6gre")), wrap: gre(unix.ETH_P_IP, true), distance: 62},
		{name: "GRE with key over IPv6, Ethernet", tunnel: key(of(v6, "ip6gretap")), ether: true, wrap: gre(unix.ETH_P_TEB, true), distance: 62},
		{name: "IP in IP", tunnel: of(v4, "ipip"), wrap: plain(unix.IPPROTO_IPIP), distance: 34},
		{name: "IP in IP with options", tunnel: of(v4, "ipip"), wrap: plain(unix.IPPROTO_IPIP), options: unknownOption},
		{name: "IP in IPv6", tunnel: of(v6, "ip6tnl"), wrap: plain(unix.IPPROTO_IPIP), distance: 54},
	}
}

const greHasKey = 0x20

func udpTo(port uint16, payload []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, forgedSource)
	b = binary.BigEndian.AppendUint16(b, port)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(payload)))
	return append(append(b, 0, 0), payload...)
}

// Of the outer packet. With them the IPv4, UDP and VXLAN headers are TLVs, the second of
// which is a service id: what follows the identification.
const (
	forgedSource = 0x4008
	forgedID     = uint16(cmsg.KeyServiceID)<<8 | 4
	forgedTTL    = 0x7B
)

// outerPacket returns the packet that carries another through the tunnel.
func (f *forgedTunnel) outerPacket(inside, chosen []byte) []byte {
	proto, payload := f.wrap(inside, chosen)
	from, to := f.tunnel.Remote.AsSlice(), f.tunnel.Local.AsSlice()
	if f.tunnel.Local.Is6() {
		if proto == unix.IPPROTO_UDP {
			sum := forge.Checksum(slices.Concat(from, to, payload), uint32(len(payload))+unix.IPPROTO_UDP)
			binary.BigEndian.PutUint16(payload[6:], sum)
		}
		b := []byte{0x60, 0, 0, 0, byte(len(payload) >> 8), byte(len(payload)), proto, forgedTTL}
		return slices.Concat(b, from, to, payload)
	}
	var options []byte
	if f.options != nil {
		options = f.options(chosen)
	}
	b := []byte{0x45 + byte(len(options)/4), 0}
	b = binary.BigEndian.AppendUint16(b, uint16(20+len(options)+len(payload)))
	b = binary.BigEndian.AppendUint16(b, forgedID)
	b = append(b, 0, 0, forgedTTL, proto, 0, 0)
	b = slices.Concat(b, from, to, options)
	mendChecksum(b)
	return append(b, payload...)
}

// exchange has the client send a datagram through the tunnel.
func (f *forgedTunnel) exchange(t *testing.T, p *netlab.Pair, chosen []byte) (cmsg.Metadata, error) {
	t.Helper()
	return exchangeBy(t, p, tunnelAddr.Addr(), func(to netip.AddrPort) error {
		inside := udpPacket(netip.MustParseAddr("198.51.100.1"), to, []byte("payload"))
		if f.ether {
			inside = slices.Concat(hardwareAddr(t, p.Server, "tunnel0"), []byte{2, 0, 0, 0, 0, 1, 8, 0}, inside)
		}
		return sendFrame(t, p, f.outerPacket(inside, chosen))
	})
}

func hardwareAddr(t *testing.T, ns *netlab.Namespace, name string) (hw net.HardwareAddr) {
	t.Helper()
	must(t, ns.Do(func() error {
		ifi, err := net.InterfaceByName(name)
		if err == nil {
			hw = ifi.HardwareAddr
		}
		return err
	}))
	return hw
}

// sendFrame sends an IP packet to the server as a frame, from the client's namespace.
func sendFrame(t *testing.T, p *netlab.Pair, ip []byte) error {
	t.Helper()
	proto := uint16(unix.ETH_P_IP)
	if ip[0]>>4 == 6 {
		proto = unix.ETH_P_IPV6
	}
	frame := slices.Concat(hardwareAddr(t, p.Server, p.ServerIf), hardwareAddr(t, p.Client, p.ClientIf))
	frame = append(binary.BigEndian.AppendUint16(frame, proto), ip...)
	client, err := netlab.Index(p.Client, p.ClientIf)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: client})
}

// openTunnel skips the test if the kernel has no such tunnels.
func openTunnel(t *testing.T, p *netlab.Pair, tunnel netlab.Tunnel) {
	t.Helper()
	err := netlab.AddTunnel(p.Server, "tunnel0", tunnel)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	must(t, err)
	must(t, netlab.AddAddr(p.Server, "tunnel0", tunnelAddr))
	must(t, netlab.SetUp(p.Server, "tunnel0"))
}

// TestTruthAnchorTunnels has another host send through tunnels what looks like a
// producer's area once the tunnel's headers are gone, behind areas of many lengths,
// which decide how much of them it is taken for. Nothing of it is: a record has the
// area that the producer wrote in front of the outer headers, or none.
func TestTruthAnchorTunnels(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.EnterCgroup(t)
	host := secretOfHost(t)
	var wrong hostSecret
	wrong.Gap = host.Gap
	for i := range wrong.Secret {
		wrong.Secret[i] = ^host.Secret[i]
	}
	service := []byte{byte(cmsg.KeyServiceID), 4, 9, 9, 9, 9, 0, 0}
	most, err := areaMax()
	must(t, err)
	sizes := []int{8, 12, 16, 20, 24, 28, 32, 36, 40, 48, 60, 84, 128}
	if testing.Short() {
		sizes = []int{8, 20, 32, 48, 128}
	}
	for _, f := range forgedTunnels(testutil.Pair(t)) {
		t.Run(f.name, func(t *testing.T) {
			p := testutil.Pair(t)
			openTunnel(t, p, f.tunnel)
			for _, forged := range [][]byte{
				anchored(cmsg.FormatTLV, service...),
				slices.Concat(service, wrong.seal(cmsg.FormatTLV)),
				slices.Concat(service, hostSecret{Gap: host.Gap}.seal(cmsg.FormatTLV)),
			} {
				for _, size := range sizes {
					if size > most {
						continue
					}
					ours := counting(size)
					f.wantNone(t, p, ours, forged)
					f.wantNone(t, p, anchored(cmsg.FormatRaw, ours[4:]...), forged)
					f.wantNone(t, p, slices.Concat(ours, wrong.seal(cmsg.FormatRaw))[:size], forged)
					if n := len(host.seal(cmsg.FormatRaw)); size >= n {
						f.wantOwn(t, p, anchored(cmsg.FormatRaw, ours[n:]...), forged)
					}
				}
			}
		})
	}
}

// wantNone has an area without the secret in front of the outer headers.
func (f *forgedTunnel) wantNone(t *testing.T, p *netlab.Pair, wire, chosen []byte) {
	t.Helper()
	t.Run(fmt.Sprintf("%x", wire), func(t *testing.T) {
		attachBytes(t, p.Server, p.ServerIf, wire)
		md, err := f.exchange(t, p, chosen)
		must(t, err)
		if md.Flags() != cmsg.FlagDecapsulated || md.Raw() != nil {
			t.Errorf("flags %v, area % x", md.Flags(), md.Raw())
		}
	})
}

// wantOwn has a sealed one there.
func (f *forgedTunnel) wantOwn(t *testing.T, p *netlab.Pair, area, chosen []byte) {
	t.Helper()
	wire := sealed(t, area)
	t.Run(fmt.Sprintf("sealed %x", area), func(t *testing.T) {
		attachBytes(t, p.Server, p.ServerIf, wire)
		md, err := f.exchange(t, p, chosen)
		must(t, err)
		// A VLAN tag inside would make a mess of a longer one.
		found := f.distance > 0 && (!f.ether || len(wire) <= f.distance)
		if f.either {
			found = md.Flags() == 0
		}
		if found && (md.Flags() != 0 || !bytes.Equal(md.Raw(), area)) {
			t.Errorf("flags %v, area % x, want that in front of the outer headers", md.Flags(), md.Raw())
		}
		if !found && (md.Flags() != cmsg.FlagDecapsulated || md.Raw() != nil) {
			t.Errorf("flags %v, area % x", md.Flags(), md.Raw())
		}
	})
}

// counting returns bytes of which each place is known.
func counting(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i + 1)
	}
	return b
}

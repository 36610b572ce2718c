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
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/internal/xdpmeta"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// frontRoom is what packets for large areas have in front of their Ethernet
// header. Most drivers leave 256 bytes there, of which the kernel keeps 40 for
// struct xdp_frame, so that 216 are the most a producer gets. What it strips
// from the packet is added to that.
const frontRoom = 64

// attachArea puts an area in front of every packet of an interface. One that ends in
// an anchor is sealed, and so arrives as it is given.
func attachArea(t *testing.T, ns *netlab.Namespace, iface string, area []byte) {
	t.Helper()
	attachBytes(t, ns, iface, sealed(t, area))
}

// attachBytes puts the same bytes in front of every packet of an interface: a
// producer that is not ours, written as instructions so that a test can give
// it any bytes. For areas over 216 bytes it strips frontRoom.
func attachBytes(t *testing.T, ns *netlab.Namespace, iface string, area []byte) {
	t.Helper()
	if len(area)%4 != 0 {
		t.Fatalf("an area of %d bytes cannot be", len(area))
	}
	insns := asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}
	if needsRoom(area) {
		insns = append(insns,
			asm.Mov.Imm(asm.R2, frontRoom),
			asm.FnXdpAdjustHead.Call(),
			asm.Mov.Reg(asm.R1, asm.R6),
		)
	}
	if len(area) > 0 {
		insns = append(insns,
			asm.Mov.Imm(asm.R2, -int32(len(area))),
			asm.FnXdpAdjustMeta.Call(),
			asm.JNE.Imm(asm.R0, 0, "pass"),
			asm.LoadMem(asm.R2, asm.R6, 8, asm.Word), // data_meta
			asm.LoadMem(asm.R3, asm.R6, 0, asm.Word), // data
			asm.Mov.Reg(asm.R4, asm.R2),
			asm.Add.Imm(asm.R4, int32(len(area))),
			asm.JGT.Reg(asm.R4, asm.R3, "pass"),
		)
		for i := 0; i < len(area); i += 4 {
			v := int32(binary.NativeEndian.Uint32(area[i:]))
			insns = append(insns,
				asm.Mov.Imm32(asm.R1, v),
				asm.StoreMem(asm.R2, int16(i), asm.R1, asm.Word),
			)
		}
	}
	insns = append(insns, asm.Mov.Imm(asm.R0, 2).WithSymbol("pass"), asm.Return())
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "area", Type: ebpf.XDP, License: "Dual BSD/GPL", Instructions: insns,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer prog.Close()
	attachXDP(t, ns, iface, prog)
}

// areaMax is the length of the greatest area that the kernel allows. Where that is
// more than 32 bytes, a packet that is only tried has less room in front of it.
var areaMax = sync.OnceValues(func() (int, error) {
	most, err := xdpmeta.Most()
	if most > 32 {
		most = cmsg.AreaMax
	}
	return most, err
})

func needsRoom(area []byte) bool { return len(area) > 216 }

func attachXDP(t testing.TB, ns *netlab.Namespace, iface string, prog *ebpf.Program) {
	t.Helper()
	err := ns.Do(func() error {
		ifi, err := net.InterfaceByName(iface)
		if err != nil {
			return err
		}
		l, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: ifi.Index, Flags: link.XDPDriverMode})
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = l.Close() })
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// exchange sends one datagram from the client to a socket at addr in the server
// namespace and returns its metadata.
func exchange(t *testing.T, p *netlab.Pair, addr netip.Addr) (md sockmeta.Metadata, err error) {
	t.Helper()
	return exchangeBy(t, p, addr, func(to netip.AddrPort) error {
		d, err := net.Dial("udp", to.String())
		if err != nil {
			return err
		}
		defer d.Close()
		_, err = d.Write([]byte("payload"))
		return err
	})
}

// exchangeFrame sends the datagram as an Ethernet frame behind frontRoom bytes
// that the producer strips.
func exchangeFrame(t *testing.T, p *netlab.Pair) (md sockmeta.Metadata, err error) {
	t.Helper()
	var server *net.Interface
	must(t, p.Server.Do(func() (err error) {
		server, err = net.InterfaceByName(p.ServerIf)
		return err
	}))
	return exchangeBy(t, p, p.ServerAddr4, func(to netip.AddrPort) error {
		client, err := net.InterfaceByName(p.ClientIf)
		if err != nil {
			return err
		}
		// veth looks at the address before the producer strips it, too.
		frame := make([]byte, frontRoom)
		copy(frame, server.HardwareAddr)
		frame = append(frame, server.HardwareAddr...)
		frame = append(frame, client.HardwareAddr...)
		frame = binary.BigEndian.AppendUint16(frame, unix.ETH_P_IP)
		frame = append(frame, udpPacket(p.ClientAddr4, to, []byte("payload"))...)

		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: client.Index})
	})
}

// udpPacket returns an IPv4 packet without UDP checksum.
func udpPacket(from netip.Addr, to netip.AddrPort, payload []byte) []byte {
	b := []byte{0x45, 0}
	b = binary.BigEndian.AppendUint16(b, uint16(28+len(payload)))
	b = append(b, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0)
	b = append(b, from.AsSlice()...)
	b = append(b, to.Addr().AsSlice()...)
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(b[10:], ^uint16(sum+sum>>16))
	b = binary.BigEndian.AppendUint16(b, 1024)
	b = binary.BigEndian.AppendUint16(b, to.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(payload)))
	b = append(b, 0, 0)
	return append(b, payload...)
}

// exchangeBy calls send in the client's namespace.
func exchangeBy(t *testing.T, p *netlab.Pair, addr netip.Addr, send func(netip.AddrPort) error) (md sockmeta.Metadata, err error) {
	t.Helper()
	var c *sockmeta.UDPConn
	must(t, p.Server.Do(func() (err error) {
		c, err = sockmeta.ListenUDP("udp", &net.UDPAddr{IP: addr.AsSlice()})
		return err
	}))
	defer c.Close()
	to := netip.AddrPortFrom(addr, c.LocalAddr().(*net.UDPAddr).AddrPort().Port())
	must(t, p.Client.Do(func() error { return send(to) }))
	must(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
	b := make([]byte, 64)
	n, _, err := c.ReadMetadata(b, &md)
	if err != nil && !sockmeta.IsMetadataError(err) {
		t.Fatal(err)
	}
	if got := string(b[:n]); got != "payload" {
		t.Fatalf("payload is %q", got)
	}
	return md, err
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func anchored(f cmsg.Format, area ...byte) []byte {
	return cmsg.AppendAnchor(slices.Clip(area), f)
}

// TestAreas has producers write areas good and bad: the payload always arrives,
// the bytes are those that were written, and nothing is read from them that is
// not there.
func TestAreas(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.EnterCgroup(t)
	most, err := areaMax()
	must(t, err)
	full := bytes.Repeat([]byte{0xA5}, most)
	for _, tt := range []struct {
		name  string
		area  []byte
		flags cmsg.Flags
		err   error
		key   cmsg.Key
		value []byte // nil: not there
	}{
		{name: "none"},
		{name: "one TLV", area: anchored(cmsg.FormatTLV, 16, 2, 1, 2), key: 16, value: []byte{1, 2}},
		{name: "empty value", area: anchored(cmsg.FormatTLV, 16, 0, 0, 0), key: 16, value: []byte{}},
		{name: "repeated key, first counts", area: anchored(cmsg.FormatTLV, 16, 1, 7, 0, 16, 1, 8, 0), key: 16, value: []byte{7}},
		{name: "padding", area: anchored(cmsg.FormatTLV, 0, 0, 0, 0, 16, 1, 7, 0), key: 16, value: []byte{7}},
		{name: "anchor alone", area: anchored(cmsg.FormatTLV), key: 16},
		{name: "TLV beyond the end", area: anchored(cmsg.FormatTLV, 16, 200, 1, 2), key: 16, err: cmsg.ErrMalformed},
		{name: "good, then overlong", area: anchored(cmsg.FormatTLV, 16, 1, 7, 0, 17, 255, 0, 0), key: 16, err: cmsg.ErrMalformed},
		{name: "anchor in the middle", area: []byte{255, 2, 0x5B, 0, 16, 2, 1, 2}, key: 16, flags: cmsg.FlagUnanchored, err: cmsg.ErrMalformed},
		{name: "without anchor", area: []byte{16, 2, 1, 2}, key: 16, value: []byte{1, 2}, flags: cmsg.FlagUnanchored},
		{name: "garbage of the greatest size", area: full, key: 0xA5, flags: cmsg.FlagUnanchored, value: nil},
		{name: "raw", area: anchored(cmsg.FormatRaw, 16, 2, 1, 2), key: 16},
		{name: "struct of the greatest size", area: anchored(cmsg.FormatStruct, full[:most-cmsg.AnchorLen-sealSize(t)]...), key: 0xA5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := testutil.Pair(t)
			attachArea(t, p.Server, p.ServerIf, tt.area)
			for _, addr := range []netip.Addr{p.ServerAddr4, p.ServerAddr6} {
				exchange := func() (sockmeta.Metadata, error) { return exchange(t, p, addr) }
				if needsRoom(sealed(t, tt.area)) {
					exchange = func() (sockmeta.Metadata, error) { return exchangeFrame(t, p) }
				}
				md, err := exchange()
				if err != nil {
					t.Fatal(err)
				}
				if got := md.Raw(); !bytes.Equal(got, tt.area) {
					t.Errorf("area is %x, want %x", got, tt.area)
				}
				if got := md.Flags(); got != tt.flags {
					t.Errorf("flags are %v, want %v", got, tt.flags)
				}
				value, ok := md.Bytes(tt.key)
				if ok != (tt.value != nil) || !bytes.Equal(value, tt.value) {
					t.Errorf("key %v is %x, %v, want %x", tt.key, value, ok, tt.value)
				}
				if err := md.Err(); tt.err != nil && !errors.Is(err, tt.err) {
					t.Errorf("error is %v, want %v", err, tt.err)
				}
				if _, ok := md.IfIndex(); !ok {
					t.Error("the built-in fields are gone")
				}
			}
		})
	}
}

// TestAreaSizes has areas of every size that the kernel allows.
func TestAreaSizes(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.EnterCgroup(t)
	most, err := areaMax()
	must(t, err)
	for size := 4; size <= most; size += 4 {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			p := testutil.Pair(t)
			area := make([]byte, size)
			for i := range area {
				area[i] = byte(i*7 + size)
			}
			attachArea(t, p.Server, p.ServerIf, area)
			exchange := func() (sockmeta.Metadata, error) { return exchange(t, p, p.ServerAddr4) }
			if needsRoom(area) {
				exchange = func() (sockmeta.Metadata, error) { return exchangeFrame(t, p) }
			}
			md, err := exchange()
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(md.Raw(), area) {
				t.Errorf("area is %x, want %x", md.Raw(), area)
			}
		})
	}
}

// TestDecapsulated sends through a VXLAN tunnel: the area in front of the outer
// header is no longer where the mac header says. A sealed one is found, and what lies
// there now is not taken for another.
func TestDecapsulated(t *testing.T) {
	p := testutil.Pair(t)
	testutil.EnterCgroup(t)
	inner := netip.MustParsePrefix("198.51.100.2/24")
	own := anchored(cmsg.FormatTLV, 16, 2, 1, 2)
	for _, end := range []struct {
		ns            *netlab.Namespace
		local, remote netip.Addr
		dev           string
		addr          netip.Prefix
	}{
		{p.Server, p.ServerAddr4, p.ClientAddr4, p.ServerIf, inner},
		{p.Client, p.ClientAddr4, p.ServerAddr4, p.ClientIf, netip.MustParsePrefix("198.51.100.1/24")},
	} {
		err := netlab.AddVXLAN(end.ns, "vx0", 7, end.local, end.remote, 4789, end.dev)
		if errors.Is(err, errors.ErrUnsupported) {
			t.Skip(err)
		}
		must(t, err)
		must(t, netlab.AddAddr(end.ns, "vx0", end.addr))
		must(t, netlab.SetUp(end.ns, "vx0"))
	}
	for _, tt := range []struct {
		name  string
		area  []byte
		flags cmsg.Flags
		want  []byte
	}{
		{"sealed", sealed(t, own), 0, own},
		{"anchored", own, cmsg.FlagDecapsulated, nil},
		{"not anchored", []byte{16, 2, 1, 2}, cmsg.FlagDecapsulated, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			attachBytes(t, p.Server, p.ServerIf, tt.area)
			md, err := exchange(t, p, inner.Addr())
			if err != nil {
				t.Fatal(err)
			}
			if md.Flags() != tt.flags || !bytes.Equal(md.Raw(), tt.want) {
				t.Errorf("flags are %v, area % x, want %v, % x", md.Flags(), md.Raw(), tt.flags, tt.want)
			}
			if got, _ := md.IfIndex(); got == 0 {
				t.Error("the built-in fields are gone")
			}
		})
	}
}

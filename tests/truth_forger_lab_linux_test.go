// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/forge"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// A forgerLab is a receiver with all tunnels that its kernel knows, and a forger on
// another host, who sends frames of his own making over the link.
type forgerLab struct {
	*netlab.Pair
	hosts      forge.Hosts
	interfaces []int
	// missing are why the devices that are not there are not.
	missing map[string]error
	wire    int // AF_PACKET socket at the forger's end of the link
	since   time.Time
	sent    uint64
}

// Addresses inside of the tunnels: any interface of the receiver takes packets to its
// own, and answers leave by the link.
var (
	forgerInner4   = netip.MustParseAddr("198.51.100.1")
	receiverInner4 = netip.MustParseAddr("198.51.100.2")
	forgerInner6   = netip.MustParseAddr("2001:db8:77::1")
	receiverInner6 = netip.MustParseAddr("2001:db8:77::2")
)

func newForgerLab(t testing.TB) *forgerLab {
	t.Helper()
	testutil.RequireRoot(t)
	lab := &forgerLab{Pair: testutil.Pair(t), missing: make(map[string]error), since: time.Now().Add(-time.Second)}
	must(t, lab.Introduce())
	must(t, lab.Server.Do(func() error {
		for _, setting := range [][2]string{
			{"ipv4/conf/all/rp_filter", "0"}, {"ipv4/conf/default/rp_filter", "0"}, {"ipv4/conf/" + lab.ServerIf + "/rp_filter", "0"},
			{"ipv6/conf/all/seg6_enabled", "1"}, {"ipv6/conf/" + lab.ServerIf + "/seg6_enabled", "1"},
		} {
			err := os.WriteFile("/proc/sys/net/"+setting[0], []byte(setting[1]), 0)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		return nil
	}))
	must(t, errors.Join(
		netlab.AddAddr(lab.Server, "lo", netip.PrefixFrom(receiverInner4, 32)),
		netlab.AddAddr(lab.Server, "lo", netip.PrefixFrom(receiverInner6, 128)),
		netlab.AddRoute(lab.Server, netip.PrefixFrom(forgerInner4, 32), lab.ClientAddr4),
		netlab.AddRoute(lab.Server, netip.PrefixFrom(forgerInner6, 128), lab.ClientAddr6),
	))
	lab.addDevices(t)
	lab.openWire(t)
	return lab
}

// addDevices makes the receiver's end of each tunnel.
func (lab *forgerLab) addDevices(t testing.TB) {
	t.Helper()
	tunnel := func(tun netlab.Tunnel) func(name string) error {
		tun.Local, tun.Remote = lab.ServerAddr4, lab.ClientAddr4
		if tun.Kind == "ip6tnl" {
			tun.Local, tun.Remote = lab.ServerAddr6, lab.ClientAddr6
		}
		return func(name string) error {
			if err := netlab.AddTunnel(lab.Server, name, tun); err != nil {
				return err
			}
			return netlab.SetUp(lab.Server, name)
		}
	}
	vlan := func(parent string, id uint16) func(name string) error {
		return func(name string) error {
			if err := netlab.AddVLAN(lab.Server, parent, name, id); err != nil {
				return err
			}
			return netlab.SetUp(lab.Server, name)
		}
	}
	for _, d := range []struct {
		name string
		add  func(name string) error
	}{
		{forge.VLANDevice, vlan(lab.ServerIf, forge.VLAN)},
		{forge.QinQDevice, vlan(forge.VLANDevice, forge.InnerVLAN)},
		{forge.VXLANDevice, tunnel(netlab.Tunnel{Kind: "vxlan", ID: forge.VNI, Port: forge.VXLANPort})},
		{forge.VXLANMDev, tunnel(netlab.Tunnel{Kind: "vxlan", Port: forge.VXLANMD, External: true})},
		{forge.GeneveDevice, tunnel(netlab.Tunnel{Kind: "geneve", ID: forge.VNI, Port: forge.GenevePort})},
		{forge.GeneveMDev, tunnel(netlab.Tunnel{Kind: "geneve", Port: forge.GeneveMD, External: true})},
		{forge.TapDevice, tunnel(netlab.Tunnel{Kind: "gretap", ID: forge.GREKey})},
		{forge.TapMDev, tunnel(netlab.Tunnel{Kind: "gretap", External: true})},
		{forge.GREDevice, tunnel(netlab.Tunnel{Kind: "gre", External: true})},
		{forge.IPIPDevice, tunnel(netlab.Tunnel{Kind: "ipip"})},
		{forge.SITDevice, tunnel(netlab.Tunnel{Kind: "sit"})},
		{forge.IP6Device, tunnel(netlab.Tunnel{Kind: "ip6tnl"})},
		{forge.SRv6, func(string) error {
			return errors.Join(
				netlab.AddSegment(lab.Server, forge.Segment4, false, lab.ServerIf),
				netlab.AddSegment(lab.Server, forge.Segment6, true, lab.ServerIf),
			)
		}},
	} {
		err := d.add(d.name)
		if err == nil {
			continue
		}
		if !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, unix.ENODEV) {
			t.Fatal(err)
		}
		lab.missing[d.name] = err
	}
	for port, proto := range map[uint16]uint8{forge.FOUPort: unix.IPPROTO_IPIP, forge.GUEPort: 0} {
		if err := netlab.AddFOU(lab.Server, port, proto); err != nil {
			lab.missing[fmt.Sprint(port)] = err
		}
	}
}

// openWire opens the forger's socket, and learns the hardware addresses.
func (lab *forgerLab) openWire(t testing.TB) {
	t.Helper()
	lab.hosts = forge.Hosts{
		From4: lab.ClientAddr4, To4: lab.ServerAddr4, From6: lab.ClientAddr6, To6: lab.ServerAddr6,
		TunnelMAC: make(map[string]net.HardwareAddr),
	}
	must(t, lab.Server.Do(func() error {
		all, err := net.Interfaces()
		for _, ifi := range all {
			lab.interfaces = append(lab.interfaces, ifi.Index)
			lab.hosts.TunnelMAC[ifi.Name] = ifi.HardwareAddr
		}
		lab.hosts.ToMAC = lab.hosts.TunnelMAC[lab.ServerIf]
		return err
	}))
	must(t, lab.Client.Do(func() error {
		ifi, err := net.InterfaceByName(lab.ClientIf)
		if err != nil {
			return err
		}
		lab.hosts.FromMAC = ifi.HardwareAddr
		all := int(binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL}))
		if lab.wire, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all); err != nil {
			return err
		}
		t.Cleanup(func() { _ = unix.Close(lab.wire) })
		patience := unix.NsecToTimeval(int64(udpPatience))
		return errors.Join(
			unix.Bind(lab.wire, &unix.SockaddrLinklayer{Protocol: uint16(all), Ifindex: ifi.Index}),
			unix.SetsockoptTimeval(lab.wire, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience),
		)
	}))
}

// reaches says why a carrier does not reach the receiver, or nil.
func (lab *forgerLab) reaches(c *forge.Carrier) error {
	if err := lab.missing[c.Device]; err != nil {
		return err
	}
	return lab.missing[map[string]string{"FOU": fmt.Sprint(forge.FOUPort), "GUE": fmt.Sprint(forge.GUEPort)}[c.Name]]
}

// inner returns the addresses inside of a carrier's tunnel.
func inner(c *forge.Carrier, port uint16) (from, to netip.AddrPort) {
	if c.V6 {
		return netip.AddrPortFrom(forgerInner6, 5555), netip.AddrPortFrom(receiverInner6, port)
	}
	return netip.AddrPortFrom(forgerInner4, 5555), netip.AddrPortFrom(receiverInner4, port)
}

// forgerPayload begins what the forger sends, and its number follows.
const forgerPayload = "forged  "

// datagram sends one by a carrier, and returns its payload.
func (lab *forgerLab) datagram(c *forge.Carrier, f forge.Fields, port uint16, text []byte) ([]byte, error) {
	lab.sent++
	payload := binary.NativeEndian.AppendUint64([]byte(forgerPayload), lab.sent)
	from, to := inner(c, port)
	return payload, lab.transmit(c.Frame(&lab.hosts, f, text, forge.UDP(f, from, to, payload)))
}

func (lab *forgerLab) transmit(frame []byte) error {
	_, err := unix.Write(lab.wire, frame)
	return os.NewSyscallError("write", err)
}

// truth is what may be in the records of what the forger sends.
func (lab *forgerLab) truth() forge.Truth {
	return forge.Truth{Interfaces: lab.interfaces, Since: lab.since}
}

// A forgerReader is a way to read datagrams.
type forgerReader struct {
	name string
	port uint16
	open func(c *sockmeta.UDPConn) (read func() ([]byte, cmsg.Metadata, error), err error)
}

var forgerReaders = []forgerReader{
	{"metadata", 9001, func(c *sockmeta.UDPConn) (func() ([]byte, cmsg.Metadata, error), error) {
		b := make([]byte, 2048)
		return func() (_ []byte, md cmsg.Metadata, err error) {
			n, _, err := c.ReadMetadata(b, &md)
			return b[:n], md, err
		}, nil
	}},
	{"batch, split", 9002, func(c *sockmeta.UDPConn) (func() ([]byte, cmsg.Metadata, error), error) {
		ms := []sockmeta.Message{{Buf: make([]byte, 2048)}}
		return func() ([]byte, cmsg.Metadata, error) {
			if _, err := c.ReadBatchMetadata(ms, 0); err != nil {
				return nil, cmsg.Metadata{}, err
			}
			return ms[0].Buf[:ms[0].N], ms[0].Metadata, ms[0].Err
		}, c.SetGRO(sockmeta.SegmentsSplit)
	}},
	{"asked of the kernel", 9003, askKernel},
}

// askKernel has the records be asked for by their handles, as by those that may not
// map the slots.
func askKernel(c *sockmeta.UDPConn) (func() ([]byte, cmsg.Metadata, error), error) {
	rc, err := c.SyscallConn()
	if err == nil {
		err = onSocket(c, carryHandles)
	}
	b, oob := make([]byte, 2048), make([]byte, 1024)
	return func() (_ []byte, md cmsg.Metadata, err error) {
		var n int
		rerr := rc.Read(func(fd uintptr) bool {
			var oobn int
			n, oobn, _, _, err = unix.Recvmsg(int(fd), b, oob, unix.MSG_DONTWAIT)
			if err != nil {
				return err != unix.EAGAIN
			}
			data, ok := cmsg.Find(oob[:oobn], unix.SOL_SOCKET, unix.SO_TIMESTAMPING)
			if !ok || len(data) < 16 {
				err = sockmeta.ErrNoMetadata
				return true
			}
			handle := binary.NativeEndian.Uint64(data)*1e9 + binary.NativeEndian.Uint64(data[8:])
			_, err = bpf.SocketSlot(int(fd), handle, md.Record())
			return true
		})
		return b[:max(n, 0)], md, errors.Join(rerr, err)
	}, err
}

// forgerVictim is a socket that the forger sends to.
type forgerVictim struct {
	forgerReader
	conn *sockmeta.UDPConn
	read func() ([]byte, cmsg.Metadata, error)
}

func (lab *forgerLab) victims(t testing.TB) (all []*forgerVictim) {
	t.Helper()
	for _, r := range forgerReaders {
		c := listenUDP(t, lab.Server, "udp", &net.UDPAddr{Port: int(r.port)})
		must(t, c.Support().Err())
		// A short datagram behind an area may take a page of the buffer.
		withFD(t, c, func(fd int) error {
			return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20)
		})
		read, err := r.open(c)
		must(t, err)
		all = append(all, &forgerVictim{r, c, read})
	}
	return all
}

// until reads datagrams up to the one with the payload last, and has each record, of
// which there may be none, be looked at.
func (v *forgerVictim) until(last []byte, look func(payload []byte, md *cmsg.Metadata)) (read int, err error) {
	if err := v.conn.SetReadDeadline(time.Now().Add(udpPatience)); err != nil {
		return 0, err
	}
	for {
		b, md, err := v.read()
		if err != nil && !sockmeta.IsMetadataError(err) {
			return read, err
		}
		read++
		if err == nil {
			look(b, &md)
		}
		if bytes.Equal(b, last) {
			return read, nil
		}
	}
}

// attachForged attaches a producer that says what forgers say: the one that the library
// has, with its service for all ports that the forger sends to.
func attachForged(t testing.TB, lab *forgerLab) {
	t.Helper()
	services := make(map[uint16]uint32)
	for _, r := range forgerReaders {
		services[r.port] = forge.Service
	}
	attachProducer(t, lab.Pair, bpf.ProducerOptions{Services: services})
}

// SPDX-License-Identifier: Apache-2.0

package clients

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/tuntest"

	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/sockmeta"
	"github.com/sockmeta/sockmeta-go/tests/clients/wgbind"
)

// A tunnel is a device with what is on its two sides.
type tunnel struct {
	device *device.Device
	bind   *wgbind.Bind
	tun    *tuntest.ChannelTUN
	addr   netip.Addr
	key    *ecdh.PrivateKey
}

// newTunnel starts a device, whose socket is on one of the hosts.
func newTunnel(t *testing.T, ns *netlab.Namespace, port uint16, addr string) *tunnel {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	must(t, err)
	d := &tunnel{tun: tuntest.NewChannelTUN(), addr: netip.MustParseAddr(addr), key: key}
	d.bind = &wgbind.Bind{Listen: func(network, address string) (c net.PacketConn, err error) {
		err = ns.Do(func() error {
			lc := sockmeta.ListenConfig{Require: true, GRO: sockmeta.SegmentsSplit}
			c, err = lc.ListenPacket(context.Background(), network, address)
			return err
		})
		return c, err
	}}
	d.device = device.NewDevice(d.tun.TUN(), d.bind, device.NewLogger(device.LogLevelError, t.Name()+": "))
	t.Cleanup(d.device.Close)
	must(t, d.device.IpcSet(fmt.Sprintf("private_key=%x\nlisten_port=%d\n", key.Bytes(), port)))
	return d
}

// knows tells a device about a peer. Only one of two needs to know where the other is.
func (d *tunnel) knows(t *testing.T, peer *tunnel, endpoint string) {
	t.Helper()
	config := fmt.Sprintf("public_key=%x\nallowed_ip=%s/32\n", peer.key.PublicKey().Bytes(), peer.addr)
	if endpoint != "" {
		config += "endpoint=" + endpoint + "\n"
	}
	must(t, d.device.IpcSet(config))
	must(t, d.device.Up())
}

// ping sends a packet through the tunnel.
func (d *tunnel) ping(t *testing.T, peer *tunnel) {
	t.Helper()
	want := tuntest.Ping(peer.addr, d.addr)
	select {
	case d.tun.Outbound <- want:
	case <-time.After(timeout):
		t.Fatal("the device takes no packet")
	}
	select {
	case got := <-peer.tun.Inbound:
		if !bytes.Equal(got, want) {
			t.Errorf("packet %x came through, want %x", got, want)
		}
	case <-time.After(timeout):
		t.Fatal("no packet came through")
	}
}

// endpoint returns where a device has seen its only peer.
func (d *tunnel) endpoint(t *testing.T) netip.AddrPort {
	t.Helper()
	config, err := d.device.IpcGet()
	must(t, err)
	for line := range strings.Lines(config) {
		if s, ok := strings.CutPrefix(strings.TrimSpace(line), "endpoint="); ok {
			return netip.MustParseAddrPort(s)
		}
	}
	t.Fatalf("no endpoint in %s", config)
	return netip.AddrPort{}
}

// TestWireGuard has three devices talk: two on the server's host, by different
// ports, with one on the client's. Each of the two is asked for the metadata of the
// packets from its peer's endpoint, and answers from the address that was used, which
// is not the host's first.
func TestWireGuard(t *testing.T) {
	l := newLab(t)
	second4, second6 := netip.MustParseAddr("192.0.2.77"), netip.MustParseAddr("2001:db8::77")
	must(t, netlab.AddAddr(l.Server, l.ServerIf, netip.PrefixFrom(second4, 24)))
	must(t, netlab.AddAddr(l.Server, l.ServerIf, netip.PrefixFrom(second6, 64)))
	for name, addr := range map[string]netip.Addr{"ipv4": second4, "ipv6": second6} {
		t.Run(name, func(t *testing.T) {
			a := newTunnel(t, l.Server, portA, "10.0.0.1")
			b := newTunnel(t, l.Server, portB, "10.0.0.2")
			client := newTunnel(t, l.Client, 0, "10.0.0.3")
			for _, server := range []*tunnel{a, b} {
				server.knows(t, client, "")
			}
			client.knows(t, a, address(addr, portA))
			client.knows(t, b, address(addr, portB))
			for range 3 {
				for _, server := range []*tunnel{a, b} {
					client.ping(t, server)
					server.ping(t, client)
				}
			}
			for server, want := range map[*tunnel]uint32{a: serviceA, b: serviceB} {
				md, err := server.bind.Metadata(server.endpoint(t))
				if got := service(md, err); got != want {
					t.Errorf("service is %d, %v, want %d", got, err, want)
				}
			}
			// The client goes after its peers: had they answered from elsewhere, they
			// would be there.
			config, err := client.device.IpcGet()
			must(t, err)
			for port := range services {
				if want := "endpoint=" + address(addr, port) + "\n"; !strings.Contains(config, want) {
					t.Errorf("no %q in the client's\n%s", want, config)
				}
			}
		})
	}
}

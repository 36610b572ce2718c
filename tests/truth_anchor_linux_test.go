// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// TestTruthAnchorUnproven has areas of producers that do not know the secret, as those
// that were built with older headers, arrive flagged, and what is left of a damaged seal
// not arrive at all: neither in the record nor in the slot.
func TestTruthAnchorUnproven(t *testing.T) {
	requireArea(t, 64)
	host := secretOfHost(t)
	value := []byte{16, 2, 1, 2}
	wrong := hostSecret{Gap: host.Gap}
	for i := range wrong.Secret {
		wrong.Secret[i] = ^host.Secret[i]
	}
	whole := slices.Concat(value, host.seal(cmsg.FormatTLV))
	anchor := anchored(cmsg.FormatTLV, value...)
	for _, tt := range []struct {
		name  string
		wire  []byte
		flags cmsg.Flags
		area  []byte
	}{
		{"older header", anchor, cmsg.FlagUnanchored, anchor},
		{"older header, struct", anchored(cmsg.FormatStruct, value...), cmsg.FlagUnanchored, anchored(cmsg.FormatStruct, value...)},
		{"this header behind an older one", slices.Concat(value, anchor), cmsg.FlagUnanchored, slices.Concat(value, anchor)},
		{"older header behind this one", slices.Concat(value, whole), 0, slices.Concat(value, anchor)},
		{"wrong secret", slices.Concat(value, wrong.seal(cmsg.FormatTLV)), cmsg.FlagUnanchored, anchor},
		{"no secret", slices.Concat(value, hostSecret{Gap: host.Gap}.seal(cmsg.FormatTLV)), cmsg.FlagUnanchored, anchor},
		{"overwritten gap", append(slices.Clone(whole[:len(whole)-2]), 9, 9), 0, anchor},
		{"moved by a tag", slices.Concat(whole, value), cmsg.FlagDecapsulated, nil},
		{"moved by an Ethernet header", slices.Concat(whole, bytes.Repeat([]byte{7}, 14), []byte{0, 0}), cmsg.FlagDecapsulated, nil},
		{"moved by half a word", slices.Concat([]byte{1, 2}, whole, []byte{1, 2}), cmsg.FlagDecapsulated, nil},
		{"cut by a tag", whole[:len(whole)-8], cmsg.FlagDecapsulated, nil},
		{"cut in front", slices.Concat(host.Secret[4:], value), cmsg.FlagDecapsulated, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := testutil.Pair(t)
			testutil.EnterCgroup(t)
			a, err := bpf.Attach(bpf.Options{SlotsPerCPU: 64})
			must(t, err)
			defer a.Close()
			attachBytes(t, p.Server, p.ServerIf, tt.wire)
			md, err := exchange(t, p, p.ServerAddr4)
			must(t, err)
			if md.Flags() != tt.flags || !bytes.Equal(md.Raw(), tt.area) {
				t.Errorf("flags %v, area % x, want %v, % x", md.Flags(), md.Raw(), tt.flags, tt.area)
			}
			rx, err := ebpf.NewMapFromID(ebpf.MapID(a.Info().RxMapID))
			must(t, err)
			defer rx.Close()
			for i := range rx.MaxEntries() {
				slot := make([]byte, rx.ValueSize())
				must(t, rx.Lookup(i, &slot))
				if bytes.Contains(slot, host.Secret[:4]) || bytes.Contains(slot, host.Secret[4:]) {
					t.Fatal("the secret is in a slot")
				}
			}
		})
	}
}

// TestTruthAnchorRouted has packets reach a container by a router, which writes each
// one's Ethernet header anew, and with it over the end of the area: from the second on,
// when it knows the neighbour, by a copy of 16 bytes.
func TestTruthAnchorRouted(t *testing.T) {
	requireArea(t, 48)
	p := testutil.Pair(t)
	testutil.EnterCgroup(t)
	inside := testutil.Namespace(t)
	host, container := netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("198.51.100.2")
	must(t, netlab.VethPair(p.Server, inside, netlab.VethConfig{
		A: netlab.VethEnd{Name: "host1", Addrs: []netip.Prefix{netip.PrefixFrom(host, 24)}},
		B: netlab.VethEnd{Name: "inside0", Addrs: []netip.Prefix{netip.PrefixFrom(container, 24)}},
	}))
	must(t, p.Server.Do(func() error {
		return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0)
	}))
	must(t, netlab.AddRoute(p.Client, netip.MustParsePrefix("198.51.100.0/24"), p.ServerAddr4))
	must(t, netlab.AddRoute(inside, netip.MustParsePrefix("192.0.2.0/24"), host))
	attachProducer(t, p, bpf.ProducerOptions{Services: map[uint16]uint32{serverPort: 1001}})
	c := listenUDP(t, inside, "udp4", &net.UDPAddr{IP: container.AsSlice(), Port: serverPort})
	must(t, p.Client.Do(func() error {
		d, err := net.Dial("udp4", fmt.Sprintf("%v:%d", container, serverPort))
		if err != nil {
			return err
		}
		defer d.Close()
		for i := range 20 {
			if _, err := d.Write([]byte{byte(i)}); err != nil {
				return err
			}
			b := make([]byte, 16)
			var md sockmeta.Metadata
			must(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
			if _, _, err := c.ReadMetadata(b, &md); err != nil {
				return err
			}
			if service, ok := md.Uint32(sockmeta.KeyServiceID); !ok || service != 1001 || md.Flags() != 0 {
				t.Errorf("datagram %d: service %d, %v, flags %v", i, service, ok, md.Flags())
			}
		}
		return nil
	}))
}

// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/internal/abi"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/internal/xdpmeta"
)

// FuzzProducer gives the producer any packet behind any area: what it adds are its
// values, in front, with the service of the packet's destination port, and an
// anchor where there was no area. The packet stays as it was.
func FuzzProducer(f *testing.F) {
	testutil.RequireRoot(f, unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_PERFMON)
	var objs producerObjects
	if err := loadProducerObjects(&objs, nil); err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = objs.Close() })

	frame := func(ethertype uint16, rest ...byte) []byte {
		return append(binary.BigEndian.AppendUint16(make([]byte, 12), ethertype), rest...)
	}
	v4 := func(ihl, proto byte, frag uint16, rest ...byte) []byte {
		b := make([]byte, max(20, int(ihl)*4))
		b[0], b[9] = 0x40|ihl, proto
		binary.BigEndian.PutUint16(b[6:], frag)
		return append(b, rest...)
	}
	v6 := func(next byte, rest ...byte) []byte {
		return append(append(make([]byte, 6), next), append(make([]byte, 33), rest...)...)
	}
	ports := []byte{4, 0, 0, 53, 0, 0}
	tag := func(inner uint16) []byte { return []byte{0, 7, byte(inner >> 8), byte(inner)} }
	for _, b := range [][]byte{
		frame(unix.ETH_P_ARP), frame(unix.ETH_P_IP, v4(5, 17, 0, ports...)...), frame(unix.ETH_P_IP, v4(5, 6, 0x2000, ports...)...),
		frame(unix.ETH_P_IP, v4(15, 17, 0, ports...)...), frame(unix.ETH_P_IP, v4(0, 17, 0, ports...)...),
		frame(unix.ETH_P_IP, v4(5, 17, 1, ports...)...), frame(unix.ETH_P_IP, v4(5, 1, 0, ports...)...),
		frame(unix.ETH_P_IP, v4(5, 17, 0, ports[:3]...)...), frame(unix.ETH_P_IP, v4(5, 17, 0)[:19]...),
		frame(unix.ETH_P_IPV6, v6(17, ports...)...), frame(unix.ETH_P_IPV6, v6(0, ports...)...), frame(unix.ETH_P_IPV6, v6(6)...),
		frame(unix.ETH_P_8021Q, append(tag(unix.ETH_P_IP), v4(5, 17, 0, ports...)...)...),
		frame(unix.ETH_P_8021AD, append(append(tag(unix.ETH_P_8021Q), tag(unix.ETH_P_IPV6)...), v6(6, ports...)...)...),
		frame(unix.ETH_P_8021Q, append(append(append(tag(unix.ETH_P_8021Q), tag(unix.ETH_P_8021Q)...), tag(unix.ETH_P_IP)...), v4(5, 17, 0, ports...)...)...),
		frame(unix.ETH_P_8021Q, 0, 7),
	} {
		f.Add([]byte(nil), b, uint16(53), uint32(7))
		f.Add([]byte{16, 2, 1, 2, 255, 2, 0x5B, 0}, b, uint16(0), uint32(7))
	}
	f.Add(make([]byte, 216), frame(unix.ETH_P_ARP), uint16(53), uint32(7))
	f.Add(make([]byte, 200), frame(unix.ETH_P_IP, v4(5, 17, 0, ports...)...), uint16(53), uint32(7))
	f.Add(make([]byte, 8), make([]byte, 13), uint16(0), uint32(0))

	// What BPF_PROG_TEST_RUN has for an area: 256 bytes without struct xdp_frame.
	// The kernel may allow less.
	most, err := xdpmeta.Most()
	if err != nil {
		f.Fatal(err)
	}
	room := min(216, most)
	f.Fuzz(func(t *testing.T, area, packet []byte, port uint16, id uint32) {
		area = area[:min(len(area), room)&^3]
		packet = packet[:min(len(packet), 2048)]
		if len(packet) < 14 {
			return
		}
		if err := objs.Services.Put(port, id); err != nil {
			t.Fatal(err)
		}
		defer objs.Services.Delete(port)
		run := &ebpf.RunOptions{
			Data:    bytes.Join([][]byte{area, packet}, nil),
			Context: struct{ Data, End, Meta, Ingress, Queue, Egress uint32 }{uint32(len(area)), uint32(len(area) + len(packet)), 0, 0, 0, 0},
			DataOut: make([]byte, 4096),
		}
		if ret, err := objs.SockmetaProducer.Run(run); err != nil || ret != 2 {
			t.Fatalf("returned %d, %v", ret, err)
		}
		got, ok := bytes.CutSuffix(run.DataOut, packet)
		if !ok {
			t.Fatalf("packet % x came out as % x", packet, run.DataOut)
		}

		// The values in their order, each where there is room for it: times and
		// ids are any.
		service := binary.NativeEndian.AppendUint32([]byte{abi.KeyServiceID, 4}, id)
		values := [][]byte{append(service, 0, 0), {abi.KeyPacketID, 8}, {abi.KeyKtime, 8}}
		sizes := []int{8, 12, 12}
		if destPort(packet) != port {
			values, sizes = values[1:], sizes[1:]
		}
		want := len(area)
		fitting := 0
		for _, size := range sizes {
			if want == 0 {
				size += abi.AnchorSize
			}
			if want+size > room {
				break
			}
			want += size
			fitting++
		}
		if len(got) != want {
			t.Fatalf("area of %d bytes became % x, want %d, port %d", len(area), got, want, destPort(packet))
		}
		for i := fitting - 1; i >= 0; i-- {
			if !bytes.HasPrefix(got, values[i]) {
				t.Fatalf("% x, want % x", got, values[i])
			}
			got = got[sizes[i]:]
		}
		if len(area) == 0 {
			area = []byte{abi.KeyAnchor, 2, abi.AnchorMagic, abi.FormatTLV}
		}
		if !bytes.Equal(got, area) {
			t.Errorf("area became % x, want % x", got, area)
		}
	})
}

// destPort is the model of dest_port() in c/producer.bpf.c.
func destPort(b []byte) uint16 {
	ethertype := binary.BigEndian.Uint16(b[12:])
	b = b[14:]
	for range 2 {
		if ethertype != unix.ETH_P_8021Q && ethertype != unix.ETH_P_8021AD {
			break
		}
		if len(b) < 4 {
			return 0
		}
		ethertype, b = binary.BigEndian.Uint16(b[2:]), b[4:]
	}
	var proto byte
	switch {
	case ethertype == unix.ETH_P_IP && len(b) >= 20 && binary.BigEndian.Uint16(b[6:])&0x1fff == 0:
		header := int(b[0]&15) * 4
		if header > len(b) {
			return 0
		}
		proto, b = b[9], b[header:]
	case ethertype == unix.ETH_P_IPV6 && len(b) >= 40:
		proto, b = b[6], b[40:]
	}
	if proto != unix.IPPROTO_UDP && proto != unix.IPPROTO_TCP || len(b) < 4 {
		return 0
	}
	return binary.BigEndian.Uint16(b[2:])
}

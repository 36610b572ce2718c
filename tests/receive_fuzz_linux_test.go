// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/forge"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// BPF_F_TEST_XDP_LIVE_FRAMES, Linux 5.18.
const testLiveFrames = 1 << 1

const fuzzPort = 9001

// fuzzHost is a host that frames are given to as if its interface had received
// them.
type fuzzHost struct {
	ns    *netlab.Namespace
	pass  *ebpf.Program
	index int
	mac   net.HardwareAddr
	conn  *net.UDPConn
	meta  *sockmeta.UDPConn // nil where it is a plain socket
}

// FuzzReceive gives any packet behind any area to two hosts that differ in one
// thing: the socket of one has opted in. Both get the same payloads, and the one
// gets the area with them, whatever is in it.
func FuzzReceive(f *testing.F) {
	testutil.RequireRoot(f)
	var objs struct {
		Pass *ebpf.Program `ebpf:"fuzz_pass"`
	}
	loadFuzz(f, &objs)
	_, within := fuzzAttachment(f, bpf.DefaultPolicy())
	p, q := testutil.Pair(f), testutil.Pair(f)
	plain := newFuzzHost(f, p, objs.Pass)
	must(f, plain.ns.Do(func() (err error) {
		plain.conn, err = net.ListenUDP("udp", &net.UDPAddr{Port: fuzzPort})
		return err
	}))
	f.Cleanup(func() { _ = plain.conn.Close() })
	host := newFuzzHost(f, q, objs.Pass)
	within(func() error {
		return host.ns.Do(func() (err error) {
			host.meta, err = sockmeta.ListenUDP("udp", &net.UDPAddr{Port: fuzzPort})
			return err
		})
	})
	f.Cleanup(func() { _ = host.meta.Close() })
	must(f, host.meta.Support().Err())
	if err := plain.give(nil, fuzzFrame(p, false, []byte("probe"))); errors.Is(err, unix.EINVAL) {
		f.Skip("the kernel has no live frames in BPF_PROG_TEST_RUN: ", err)
	} else {
		must(f, err)
	}
	_, err := plain.conn.Read(make([]byte, 16))
	must(f, err)

	tlvs := anchored(cmsg.FormatTLV, 16, 2, 1, 2, 17, 4, 1, 2, 3, 4, 0, 0)
	for _, v6 := range []bool{false, true} {
		f.Add([]byte(nil), []byte("payload"), []byte(nil), v6, true)
		f.Add(tlvs, []byte("payload"), []byte(nil), v6, true)
		f.Add(sealed(f, tlvs), []byte("payload"), []byte(nil), v6, true)
		f.Add(hostSecret{Gap: 1}.seal(cmsg.FormatTLV), []byte("payload"), []byte(nil), v6, true)
		f.Add(append(tlvs, hostSecret{}.seal(cmsg.FormatRaw)...), []byte("payload"), []byte(nil), v6, true)
		f.Add(anchored(cmsg.FormatRaw, 1, 2, 3, 4), []byte("x"), []byte(nil), v6, true)
		f.Add([]byte{16, 2, 1, 2}, []byte{}, []byte(nil), v6, true)
		f.Add([]byte{16, 2, 1, 2, 255, 3, 0x5B, 0}, []byte("payload"), []byte(nil), v6, true)
		f.Add([]byte{16, 200, 1, 2, 255, 2, 0x5B, 9}, []byte("payload"), []byte{24, 1}, v6, true)
		f.Add(bytes.Repeat([]byte{0xA5}, xdpRoom(f)), bytes.Repeat([]byte{7}, 1000), []byte{5, 3}, v6, true)
	}
	f.Add(tlvs, bytes.Repeat([]byte{1}, 100), []byte{0, 3}, false, true)
	f.Add(tlvs, []byte("fragment"), []byte{6, 0x20}, false, true)
	f.Add(tlvs, []byte("checksum"), []byte{1, 4}, false, false)

	var n uint64
	f.Fuzz(func(t *testing.T, area, payload, flips []byte, v6, mend bool) {
		n++
		area = words(area, xdpRoom(t))
		// The kernel refuses a packet of several pages.
		payload = payload[:min(len(payload), 1200)]
		ip := fuzzFrame(p, v6, payload)
		for ; len(flips) >= 2; flips = flips[2:] {
			ip[int(flips[0])%len(ip)] ^= flips[1]
		}
		if !v6 {
			// Parts of one packet are not those of another.
			binary.BigEndian.PutUint16(ip[4:], uint16(n))
			if mend {
				mendChecksum(ip)
			}
		}
		marker := binary.BigEndian.AppendUint64([]byte("marker"), n)
		end := fuzzFrame(p, false, marker)
		for _, h := range []*fuzzHost{plain, host} {
			must(t, h.give(area, ip))
			must(t, h.give(nil, end))
		}

		want := plain.read(t, marker, nil)
		got := host.read(t, marker, func(b []byte, md *sockmeta.Metadata, err error) {
			if err != nil {
				t.Fatalf("payload % x: %v", b, err)
			}
			if !bytes.Equal(b, payload) {
				return
			}
			checkArea(t, md, area)
			if index, ok := md.IfIndex(); !ok || index != host.index {
				t.Errorf("interface %d, %v, want %d", index, ok, host.index)
			}
		})
		if !slices.EqualFunc(got, want, func(a, b received) bool { return a.from == b.from && bytes.Equal(a.payload, b.payload) }) {
			t.Errorf("packet % x\n  got %v\nplain %v", ip, got, want)
		}
	})
}

// checkArea compares metadata with the area that the packet came with.
func checkArea(t *testing.T, md *sockmeta.Metadata, area []byte) {
	t.Helper()
	want, format, flags := recorded(secretOfHost(t), area)
	if !bytes.Equal(md.Raw(), want) || md.Flags() != flags || md.Format() != format {
		t.Errorf("area % x, %v, flags %v\nwant % x, %v, %v", md.Raw(), md.Format(), md.Flags(), want, format, flags)
	}
}

func newFuzzHost(f *testing.F, p *netlab.Pair, pass *ebpf.Program) *fuzzHost {
	f.Helper()
	h := &fuzzHost{ns: p.Server, pass: pass}
	// Without a program a veth has no XDP queue to receive on.
	attachXDP(f, p.Server, p.ServerIf, pass)
	must(f, p.Server.Do(func() error {
		ifi, err := net.InterfaceByName(p.ServerIf)
		if err == nil {
			h.index, h.mac = ifi.Index, ifi.HardwareAddr
		}
		return err
	}))
	return h
}

// give has the host receive an IP packet behind an area.
func (h *fuzzHost) give(area, ip []byte) error {
	frame := slices.Concat(area, h.mac, make([]byte, 6))
	ethertype := uint16(unix.ETH_P_IP)
	if ip[0]>>4 == 6 {
		ethertype = unix.ETH_P_IPV6
	}
	frame = append(binary.BigEndian.AppendUint16(frame, ethertype), ip...)
	return h.ns.Do(func() error {
		_, err := h.pass.Run(&ebpf.RunOptions{
			Data:      frame,
			Context:   xdpMD{Data: uint32(len(area)), DataEnd: uint32(len(frame)), IngressIfindex: uint32(h.index)},
			Flags:     testLiveFrames,
			Repeat:    1,
			BatchSize: 1,
		})
		return err
	})
}

type received struct {
	payload []byte
	from    netip.AddrPort
}

// read returns what the host's socket received in front of the marker.
func (h *fuzzHost) read(t *testing.T, marker []byte, check func([]byte, *sockmeta.Metadata, error)) (all []received) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	b := make([]byte, 2048)
	for {
		var n int
		var from netip.AddrPort
		var md sockmeta.Metadata
		var err, merr error
		if h.meta != nil {
			must(t, h.meta.SetReadDeadline(deadline))
			n, from, err = h.meta.ReadMetadata(b, &md)
			if sockmeta.IsMetadataError(err) {
				err, merr = nil, err
			}
		} else {
			must(t, h.conn.SetReadDeadline(deadline))
			n, from, err = h.conn.ReadFromUDPAddrPort(b)
		}
		must(t, err)
		if bytes.Equal(b[:n], marker) {
			return all
		}
		if check != nil {
			check(b[:n], &md, merr)
		}
		all = append(all, received{bytes.Clone(b[:n]), from})
	}
}

// fuzzFrame returns an IP packet to the server, by IPv6 with a checksum.
func fuzzFrame(p *netlab.Pair, v6 bool, payload []byte) []byte {
	if !v6 {
		return udpPacket(p.ClientAddr4, netip.AddrPortFrom(p.ServerAddr4, fuzzPort), payload)
	}
	n := uint16(8 + len(payload))
	b := []byte{0x60, 0, 0, 0, byte(n >> 8), byte(n), unix.IPPROTO_UDP, 64}
	b = append(b, p.ClientAddr6.AsSlice()...)
	b = append(b, p.ServerAddr6.AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, 1024)
	b = binary.BigEndian.AppendUint16(b, fuzzPort)
	b = binary.BigEndian.AppendUint16(b, n)
	b = append(append(b, 0, 0), payload...)
	sum := forge.Checksum(b[8:], uint32(n)+unix.IPPROTO_UDP)
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(b[46:], sum)
	return b
}

func mendChecksum(ip []byte) {
	end := int(ip[0]&15) * 4
	if end < 20 || end > len(ip) {
		return
	}
	ip[10], ip[11] = 0, 0
	binary.BigEndian.PutUint16(ip[10:], forge.Checksum(ip[:end], 0))
}

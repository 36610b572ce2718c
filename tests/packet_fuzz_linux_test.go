// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/binary"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/internal/testprog"
)

// FuzzPacket has the programs parse any packet: parse_segment() of bpf/c/tcp.h,
// flow_of_packet() of bpf/c/local.h and sockmeta_tx_whole() of
// bpf/include/sockmeta_tx.h find what is in it, or that it is none for them.
func FuzzPacket(f *testing.F) {
	var objs struct {
		Segment *ebpf.Program  `ebpf:"fuzz_segment"`
		Rest    *ebpf.Program  `ebpf:"fuzz_packet"`
		Packet  *ebpf.Variable `ebpf:"packet"`
	}
	loadFuzz(f, &objs)
	v4 := func(proto, ihl byte, frag uint16, rest ...byte) []byte {
		b := make([]byte, int(ihl)*4)
		b[0], b[9] = 0x40|ihl, proto
		binary.BigEndian.PutUint16(b[6:], frag)
		copy(b[12:], []byte{192, 0, 2, 1, 192, 0, 2, 2})
		return append(b, rest...)
	}
	v6 := func(next byte, rest ...byte) []byte {
		b := make([]byte, 40)
		b[0], b[6] = 0x60, next
		for i := 8; i < 40; i++ {
			b[i] = byte(i)
		}
		return append(b, rest...)
	}
	tcp := func(flags, doff byte, payload int) []byte {
		b := make([]byte, max(20, int(doff)*4)+payload)
		copy(b, []byte{4, 0, 0, 80, 0xff, 0xff, 0xff, 0xf0, 1, 2, 3, 4, doff << 4, flags})
		return b
	}
	udp := []byte{4, 0, 0, 53, 0, 12, 0, 0, 1, 2, 3, 4}
	options := func(next, length byte) []byte {
		b := make([]byte, (int(length)+1)*8)
		b[0], b[1] = next, length
		return b
	}
	for _, b := range [][]byte{
		nil, v4(17, 5, 0, udp...), v4(17, 5, 0x4000, udp...), v4(17, 5, 0x2000, udp...), v4(17, 5, 1, udp...),
		v4(6, 5, 0, tcp(2, 5, 0)...), v4(6, 15, 0, tcp(0x12, 15, 9)...), v4(6, 5, 0, tcp(0x11, 5, 100)...),
		v4(6, 5, 0, tcp(0x10, 15, 0)[:30]...), v4(6, 5, 0, tcp(0x10, 0, 7)...), v4(6, 5, 0), v4(1, 5, 0, udp...),
	} {
		f.Add(uint8(0), b)
	}
	tcp6 := tcp(0x18, 8, 33)
	for _, b := range [][]byte{
		v6(17, udp...), v6(6, tcp6...), v6(6, tcp6[:19]...), v6(44, append(options(6, 0), tcp6...)...),
		v6(0, append(options(6, 0), tcp6...)...), v6(60, append(options(43, 1), append(options(6, 2), tcp6...)...)...),
		v6(0, append(append(append(options(60, 0), options(60, 0)...), append(options(60, 0), options(6, 0)...)...), tcp6...)...),
		v6(0, append(append(append(options(60, 0), options(60, 0)...), append(options(60, 0), append(options(60, 0), options(6, 0)...)...)...), tcp6...)...),
		v6(0, 6, 255, 0), v6(6)[:39],
	} {
		f.Add(uint8(1), b)
	}
	f.Add(uint8(2), v4(6, 5, 0, tcp(2, 5, 0)...))

	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		b = b[:min(len(b), 2048)]
		ethertype := []uint16{unix.ETH_P_IP, unix.ETH_P_IPV6, unix.ETH_P_ARP}[kind%3]
		if !testRun(t, objs.Segment, ethertype, b) || !testRun(t, objs.Rest, ethertype, b) {
			return
		}
		var got testprog.FuzzFuzzPacket
		must(t, objs.Packet.Get(&got))
		want := parsePacket(ethertype, b)
		// What is left of a packet that is none is nobody's business.
		if want.IsSegment == 0 && got.IsSegment == 0 {
			got.Segment, got.Start, got.End, got.AckSeq, got.Syn, got.Ack, got.Fin = want.Segment, 0, 0, 0, 0, 0, 0
		}
		if want.IsFlow == 0 && got.IsFlow == 0 {
			got.Flow = want.Flow
		}
		if got != want {
			t.Errorf("ethertype %#x, % x\n got %+v\nwant %+v", ethertype, b, got, want)
		}
	})
}

// parsePacket is the model of the programs' parsers.
func parsePacket(ethertype uint16, b []byte) (p testprog.FuzzFuzzPacket) {
	if len(b) < 10 {
		return p
	}
	yes := func(v bool) uint32 {
		if v {
			return 1
		}
		return 0
	}
	fragment := binary.BigEndian.Uint16(b[6:])&0x3fff != 0
	whole := func(proto byte) uint32 {
		if b[0]>>4 == 4 {
			return yes(b[9] == proto && !fragment)
		}
		// Options of the sender's own may be in front.
		next, at := b[6], 40
		for i := 0; i < 4 && (next == unix.IPPROTO_HOPOPTS || next == unix.IPPROTO_ROUTING || next == unix.IPPROTO_DSTOPTS); i++ {
			if at+2 > len(b) {
				return 0
			}
			next, at = b[at], at+(int(b[at+1])+1)*8
		}
		return yes(next == proto)
	}
	p.WholeTcp, p.WholeUdp = whole(unix.IPPROTO_TCP), whole(unix.IPPROTO_UDP)

	var src, dst [4]uint32
	var next byte
	var off int
	words := func(to *[4]uint32, from []byte) {
		for i := range to {
			to[i] = binary.NativeEndian.Uint32(from[4*i:])
		}
	}
	switch {
	case ethertype == unix.ETH_P_IP && len(b) >= 20:
		mapped := func(a []byte) []byte { return append([]byte{10: 0xff, 11: 0xff}, a...) }
		words(&src, mapped(b[12:16]))
		words(&dst, mapped(b[16:20]))
		next, off = b[9], int(b[0]&15)*4
	case ethertype == unix.ETH_P_IPV6 && len(b) >= 40:
		words(&src, b[8:24])
		words(&dst, b[24:40])
		next, off = b[6], 40
		fragment = false
	default:
		return p
	}

	if isTransport := next == unix.IPPROTO_TCP || next == unix.IPPROTO_UDP; isTransport && !fragment && off+4 <= len(b) {
		p.IsFlow = 1
		p.Flow.Realm = uint64(next)
		p.Flow.Local, p.Flow.Remote = src, dst
		p.Flow.LocalPort = binary.BigEndian.Uint16(b[off:])
		p.Flow.RemotePort = binary.BigEndian.Uint16(b[off+2:])
	}

	if ethertype == unix.ETH_P_IPV6 {
		for range 4 {
			if next != unix.IPPROTO_HOPOPTS && next != unix.IPPROTO_ROUTING && next != unix.IPPROTO_DSTOPTS || off+2 > len(b) {
				break
			}
			next, off = b[off], off+8*(int(b[off+1])+1)
		}
	}
	if next != unix.IPPROTO_TCP || off+20 > len(b) {
		return p
	}
	th := b[off:]
	data := int(th[12]>>4) * 4
	if data > len(th) {
		return p
	}
	flag := func(bit byte) uint8 { return uint8(yes(th[13]&bit != 0)) }
	p.IsSegment = 1
	p.Segment.Remote, p.Segment.Local = src, dst
	p.Segment.RemotePort = binary.BigEndian.Uint16(th)
	p.Segment.LocalPort = binary.BigEndian.Uint16(th[2:])
	p.Fin, p.Syn, p.Ack = flag(1), flag(2), flag(16)
	p.Start = binary.BigEndian.Uint32(th[4:]) + uint32(p.Syn)
	p.End = p.Start + uint32(len(th)-data) + uint32(p.Fin)
	p.AckSeq = binary.BigEndian.Uint32(th[8:])
	return p
}

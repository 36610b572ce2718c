// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"slices"
	"testing"

	"github.com/cilium/ebpf"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/abi"
	"github.com/sockmeta/sockmeta-go/internal/testprog"
)

// What of a sender's TLVs and a producer's fits into one record, see
// bpf/c/local.h.
const (
	senderMax         = 244
	senderBesideMax   = 124
	producerBesideMax = 156
)

// FuzzLocal takes any record from a sender to a receiver on this host, by
// bpf/c/cross.h and bpf/c/local.h, with any area of a producer's there: what
// arrives are the TLVs that may, whole and in order, or none, and nothing of the
// producer's is lost.
func FuzzLocal(f *testing.F) {
	var objs struct {
		Program *ebpf.Program `ebpf:"fuzz_local"`
		Local   *ebpf.Map     `ebpf:"local"`
		Slots   *ebpf.Map     `ebpf:"sockmeta_locals"`
	}
	loadFuzz(f, &objs)
	tlvs := func(n int) (area []byte) {
		for i := range n {
			area, _ = cmsg.AppendTLV(area, cmsg.KeyUser+cmsg.Key(i), bytes.Repeat([]byte{byte(i + 1)}, i%9))
		}
		return area
	}
	whole := func(n int) []byte {
		area, _ := cmsg.AppendTLV(nil, cmsg.KeyUser, bytes.Repeat([]byte{7}, n))
		return area
	}
	both := []byte{16, 17, 18, 19}
	f.Add(anchored(cmsg.FormatTLV, tlvs(3)...), uint8(0), both, []byte(nil), uint64(5), uint64(7), false)
	f.Add(anchored(cmsg.FormatTLV, tlvs(9)...), uint8(0), both, anchored(cmsg.FormatTLV, tlvs(2)...), uint64(1025), uint64(1027), false)
	f.Add(tlvs(4), uint8(0), []byte{17}, anchored(cmsg.FormatTLV, tlvs(12)...), uint64(5), uint64(7), false)
	f.Add(tlvs(4), uint8(0), []byte{17}, tlvs(1), uint64(5), uint64(6), false)
	f.Add(tlvs(4), uint8(0), []byte(nil), []byte(nil), uint64(5), uint64(1024+7), false)
	f.Add(tlvs(4), uint8(0), both, []byte(nil), uint64(5), uint64(7), true)
	f.Add(whole(240), uint8(0), both, []byte(nil), uint64(5), uint64(7), false)
	f.Add(whole(246), uint8(0), both, []byte(nil), uint64(5), uint64(7), false)
	f.Add(whole(120), uint8(0), both, anchored(cmsg.FormatTLV, whole(110)...), uint64(5), uint64(7), false)
	f.Add(whole(60), uint8(0), both, anchored(cmsg.FormatTLV, whole(168)...), uint64(5), uint64(7), false)
	f.Add(whole(4), uint8(0), both, anchored(cmsg.FormatTLV, 48, 12, 1, 2), uint64(5), uint64(7), false)
	f.Add(whole(4), uint8(1), both, anchored(cmsg.FormatRaw, whole(4)...), uint64(5), uint64(7), false)
	f.Add([]byte{16, 2, 1, 2, 17, 9, 1, 2}, uint8(0), both, anchored(cmsg.FormatTLV, 6, 1, 1, 0), ^uint64(0), uint64(5), false)
	f.Add([]byte{0, 6, 16, 2, 1, 2, 0, 0, 16, 2, 1, 2}, uint8(0), both, []byte{255, 2, 0x5B, 9}, uint64(0), uint64(2), false)

	f.Fuzz(func(t *testing.T, area []byte, format uint8, keys, producer []byte, number, asked uint64, strayed bool) {
		area, producer = words(area, abi.AreaMax), words(producer, abi.AreaMax)
		// As the egress program gives them out: from 2 on.
		number = 2 + number%(1<<61-2)
		var in testprog.FuzzFuzzLocal
		in.Number, in.Asked = number, asked
		if strayed {
			in.Strayed = 1
		}
		in.Sent.Format, in.Sent.AreaLen = format, uint8(len(area))
		copy(in.Sent.Area[:], area)
		var may [256]bool
		for _, k := range keys {
			if k != abi.KeyPad && k != abi.KeyAnchor && k != abi.KeySender {
				may[k] = true
				in.Policy.Local[k>>6] |= 1 << (k & 63)
			}
		}
		// As record.h leaves a producer's area.
		in.Rec.Version, in.Rec.HdrLen, in.Rec.AreaLen = abi.RecordVersion, 64, uint8(len(producer))
		copy(in.Rec.Area[:], producer)
		theirs, stated, isAnchored := cutAnchor(producer)
		in.Rec.Format = uint8(stated)
		if !isAnchored && len(producer) > 0 {
			in.Rec.Flags = abi.FlagUnanchored
		}
		for i := range in.Spare {
			in.Spare[i] = 0xEE
		}
		must(t, objs.Local.Put(uint32(0), &in))
		// of UDP over IPv4
		if !testRun(t, objs.Program, unix.ETH_P_IP, append([]byte{0: 0x45, 9: unix.IPPROTO_UDP, 19: 0}, make([]byte, 44)...)) {
			t.Fatal("not a packet")
		}
		index := uint32(number % 1024)
		must(t, objs.Slots.Put(index, &testprog.FuzzSockmetaLocal{}))
		var got testprog.FuzzFuzzLocal
		must(t, objs.Local.Lookup(uint32(0), &got))

		crossed, kept := crossing(area, cmsg.Format(format), &may)
		if int(got.Crossed) != len(crossed) || !bytes.Equal(got.Slot.Area[:got.Crossed], crossed) {
			t.Fatalf("% x with keys %v\n got % x\nwant % x", area, keys, got.Slot.Area[:got.Crossed], crossed)
		}
		// Where both have something, each has a bound, too.
		fits := !strayed && len(crossed) > 0 && len(crossed) <= senderMax && asked&^(3<<61) == number
		if len(producer) > 0 {
			_, sound := walkTLVs(theirs)
			fits = fits && isAnchored && stated == cmsg.FormatTLV && len(theirs) <= producerBesideMax && sound &&
				len(crossed) <= senderBesideMax && len(theirs)+len(crossed)+8 <= abi.AreaMax
		}
		want := producer
		if fits {
			want = slices.Concat(theirs, []byte{abi.KeySender, byte(len(crossed))}, crossed, []byte{0, 0, 255, 2, 0x5B, 0})
		}
		if (got.Put == 1) != fits || !bytes.Equal(got.Rec.Area[:got.Rec.AreaLen], want) {
			t.Fatalf("% x behind % x: put %d\n got % x\nwant % x", crossed, producer, got.Put, got.Rec.Area[:got.Rec.AreaLen], want)
		}
		if got.Spare != in.Spare {
			t.Fatal("wrote behind the record's spare bytes")
		}

		var md, sender cmsg.Metadata
		must(t, md.Decode(slices.Concat([]byte{1, 64, got.Rec.AreaLen, got.Rec.Format}, make([]byte, 60), got.Rec.Area[:got.Rec.AreaLen])))
		if !fits || md.Err() != nil || slices.ContainsFunc(mustWalk(theirs), func(e tlv) bool { return e.key == abi.KeySender }) {
			return
		}
		if !md.Sender(&sender) {
			t.Fatalf("no sender in %v", md)
		}
		var seen []tlv
		for k, v := range sender.All() {
			seen = append(seen, tlv{key: uint8(k), value: v})
		}
		if !slices.EqualFunc(seen, kept, func(a, b tlv) bool { return a.key == b.key && bytes.Equal(a.value, b.value) }) {
			t.Errorf("sender gave %v, want %v", seen, kept)
		}
	})
}

func mustWalk(area []byte) []tlv {
	tlvs, _ := walkTLVs(area)
	return tlvs
}

// crossing is the model of cross(): what of an area goes to receivers on this
// host, the rest of it being padding, and the TLVs in it.
func crossing(area []byte, format cmsg.Format, may *[256]bool) (out []byte, kept []tlv) {
	if format != cmsg.FormatTLV {
		return nil, nil
	}
	if rest, stated, ok := cutAnchor(area); ok && stated == cmsg.FormatTLV {
		area = rest
	}
	tlvs, ok := walkTLVs(area)
	if !ok || len(area) > senderMax {
		return nil, nil
	}
	for _, e := range tlvs {
		if may[e.key] {
			out = append(out, e.whole...)
			kept = append(kept, e)
			continue
		}
		pad := make([]byte, len(e.whole))
		pad[1] = byte(len(e.value))
		out = append(out, pad...)
	}
	if kept == nil {
		return nil, nil
	}
	return out, kept
}

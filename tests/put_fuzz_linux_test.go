// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/testprog"
)

// xdpMD is struct xdp_md: what is in front of a frame is its area.
type xdpMD struct {
	Data, DataEnd, DataMeta                     uint32
	IngressIfindex, RxQueueIndex, EgressIfindex uint32
}

// testRunRoom is the length of the largest area that BPF_PROG_TEST_RUN has room for:
// 256 bytes without struct xdp_frame.
const testRunRoom = 216

// xdpRoom returns the same, or less where the kernel allows less.
func xdpRoom(t testing.TB) int {
	t.Helper()
	most, err := areaMax()
	must(t, err)
	return min(testRunRoom, most)
}

// putSizes are those of testprog's programs, by their number; putAreas are the
// areas.
var (
	putSizes = []int{0, 1, 2, 4, 5, 8, 16, 100}
	putAreas = []struct {
		size   int
		format cmsg.Format
	}{{12, cmsg.FormatStruct}, {64, cmsg.FormatRaw}}
)

// FuzzPut has a producer put values by bpf/include/sockmeta.h in front of any
// area, and look for one.
func FuzzPut(f *testing.F) {
	var objs struct {
		Program *ebpf.Program  `ebpf:"fuzz_area"`
		Area    *ebpf.Variable `ebpf:"area"`
	}
	loadFuzz(f, &objs)
	host := secretOfHost(f)
	tlvs := anchored(cmsg.FormatTLV, 16, 2, 1, 2, 17, 4, 1, 2, 3, 4, 0, 0)
	f.Add([]byte(nil), []byte{16, 3, 17, 5, 16, 1}, uint8(16), uint8(1))
	f.Add(tlvs, []byte{18, 6, 18, 0}, uint8(17), uint8(3))
	f.Add(tlvs, []byte{1, 8}, uint8(16), uint8(1))
	f.Add([]byte(nil), []byte{1, 8, 2, 9, 3, 2}, uint8(3), uint8(2))
	f.Add([]byte(nil), []byte{1, 9, 2, 7, 3, 7}, uint8(2), uint8(7))
	f.Add([]byte(nil), []byte{1, 7, 2, 7, 3, 6, 4, 6}, uint8(1), uint8(7))
	f.Add([]byte{16, 255, 1, 2, 17, 0, 0, 0}, []byte(nil), uint8(17), uint8(0))
	f.Add([]byte{16, 1, 1, 2}, []byte{0, 0}, uint8(16), uint8(2))

	f.Fuzz(func(t *testing.T, start, puts []byte, key, op uint8) {
		area := bytes.Clone(words(start, xdpRoom(t)))
		var in, got testprog.FuzzFuzzArea
		for i := range in.Value {
			in.Value[i] = byte(i + 1)
		}
		for ; len(puts) >= 2 && int(in.N) < len(in.Puts); puts = puts[2:] {
			in.Puts[in.N].Key = puts[0]%254 + 1
			in.Puts[in.N].Op = puts[1] % uint8(len(putSizes)+len(putAreas))
			in.N++
		}
		in.Key, in.Op = key, op%uint8(len(putSizes))
		must(t, objs.Area.Set(&in))
		frame := make([]byte, 64)
		out := make([]byte, 512)
		run := &ebpf.RunOptions{
			Data:    append(bytes.Clone(area), frame...),
			Context: xdpMD{Data: uint32(len(area)), DataEnd: uint32(len(area) + len(frame))},
			DataOut: out,
		}
		_, err := objs.Program.Run(run)
		must(t, err)
		must(t, objs.Area.Get(&got))

		last := make(map[uint8][]byte)
		for i, p := range in.Puts[:in.N] {
			want, full := putModel(host, area, p.Key, p.Op, in.Value[:], xdpRoom(t))
			err := -unix.Errno(got.Puts[i].Err)
			switch {
			case err == 0 && full == 0:
				area = want
				if int(p.Op) < len(putSizes) {
					last[p.Key] = in.Value[:putSizes[p.Op]]
				}
			case err != full:
				t.Fatalf("put %d of key %d, op %d in front of % x: %v, want %v", i, p.Key, p.Op, area, err, full)
			}
		}
		if behind := run.DataOut[len(run.DataOut)-len(frame):]; !bytes.Equal(behind, frame) {
			t.Fatalf("the packet is % x", behind)
		}
		if made := run.DataOut[:len(run.DataOut)-len(frame)]; !bytes.Equal(made, area) {
			t.Fatalf("area\n got % x\nwant % x", made, area)
		}
		if want := findModel(area, in.Key, putSizes[in.Op]); got.Found != want {
			t.Errorf("key %d of %d bytes in % x: place %d, want %d", in.Key, putSizes[in.Op], area, got.Found, want)
		}

		var md cmsg.Metadata
		record, _, _ := recorded(host, area)
		if md.SetRaw(record, cmsg.FormatTLV) != nil {
			return
		}
		for k, v := range last {
			if b, ok := md.Bytes(cmsg.Key(k)); !ok || !bytes.Equal(b, v) {
				t.Errorf("key %d is % x, %v, want % x", k, b, ok, v)
			}
		}
	})
}

// putModel returns the area, of which room bytes can be, with one more value, or the
// error.
func putModel(host hostSecret, area []byte, key, op uint8, value []byte, room int) ([]byte, unix.Errno) {
	var front []byte
	format := cmsg.FormatTLV
	if int(op) < len(putSizes) {
		n := putSizes[op]
		front = append([]byte{key, byte(n)}, value[:n]...)
		for len(front)%4 != 0 {
			front = append(front, 0)
		}
	} else {
		a := putAreas[int(op)-len(putSizes)]
		front, format = bytes.Clone(value[:a.size]), a.format
		if len(area) > 0 {
			return nil, unix.EEXIST
		}
	}
	if len(area) == 0 {
		area = host.seal(format)
	}
	if area = append(front, area...); len(area) > testRunRoom {
		return nil, unix.EINVAL
	}
	if len(area) > room {
		return nil, unix.EACCES
	}
	return area, 0
}

// findModel returns the place of a value and 1, or 0.
func findModel(area []byte, key uint8, size int) uint32 {
	tlvs, _ := walkTLVs(area)
	off := 0
	for _, e := range tlvs {
		if e.key == key && len(e.value) != size {
			return 0
		}
		if e.key == key {
			return uint32(off + 3)
		}
		off += len(e.whole)
	}
	// One whose padding is cut off is there all the same.
	if rest := area[off:]; len(rest) >= 4 && rest[0] == key && int(rest[1]) == size && 2+size <= len(rest) {
		return uint32(off + 3)
	}
	return 0
}

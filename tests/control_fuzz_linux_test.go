// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/binary"
	"strconv"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/testprog"
)

// FuzzControl walks any control messages by bpf/include/sockmeta_cmsg.h: it finds
// those that package cmsg finds, up to its limit.
func FuzzControl(f *testing.F) {
	if strconv.IntSize != 64 {
		f.Skip("package cmsg has this system's control messages, of 32 bits")
	}
	var objs struct {
		Program *ebpf.Program `ebpf:"fuzz_control"`
		Control *ebpf.Map     `ebpf:"control"`
	}
	loadFuzz(f, &objs)
	one := cmsg.Append(nil, cmsg.SOL_BPF, cmsg.SCM_RECORD, []byte("record"))
	two := cmsg.Append(cmsg.Append(nil, 1, 61, make([]byte, 8)), cmsg.SOL_BPF, cmsg.SCM_RECORD, []byte("abc"))
	var many []byte
	for i := range 40 {
		many = cmsg.Append(many, i, -i, nil)
	}
	length := func(n uint64) []byte { return append(binary.NativeEndian.AppendUint64(nil, n), one[8:]...) }
	for _, b := range [][]byte{
		nil, one, one[:22], one[:16], one[:15], two, many,
		length(0), length(15), length(16), length(25), length(1 << 63), length(^uint64(0)), length(^uint64(0) - 6),
	} {
		f.Add(b)
	}

	f.Fuzz(func(t *testing.T, b []byte) {
		var got testprog.FuzzFuzzControl
		b = b[:min(len(b), len(got.Bytes))]
		in := testprog.FuzzFuzzControl{Len: uint32(len(b))}
		copy(in.Bytes[:], b)
		// What lies behind them is none of theirs.
		for i := len(b); i < len(in.Bytes); i++ {
			in.Bytes[i] = 0x11
		}
		must(t, objs.Control.Put(uint32(0), &in))
		runAlone(t, objs.Program)
		must(t, objs.Control.Lookup(uint32(0), &got))

		want := in
		off := 0
		for m := range cmsg.All(b) {
			if int(want.Found) == len(want.Messages) {
				break
			}
			to := &want.Messages[want.Found]
			to.Offset, to.Len, to.Level, to.Type = uint32(off+cmsg.HeaderLen), uint32(len(m.Data)), m.Level, m.Type
			off += cmsg.Space(len(m.Data))
			want.Found++
		}
		if got.Found != want.Found || got.Messages != want.Messages {
			t.Errorf("% x\n got %d: %+v\nwant %d: %+v", b, got.Found, got.Messages, want.Found, want.Messages)
		}
	})
}

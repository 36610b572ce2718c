// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/testprog"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
)

// loadFuzz loads those of testprog's functions for fuzzing that objs has. They
// are gone with the process, also where that is a fuzz worker that is killed.
func loadFuzz(f *testing.F, objs any) {
	f.Helper()
	loadFuzzWith(f, objs, nil)
}

// loadFuzzWith has them share maps with an attachment.
func loadFuzzWith(f *testing.F, objs any, maps map[string]*ebpf.Map) {
	f.Helper()
	testutil.RequireRoot(f, unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_PERFMON)
	spec, err := testprog.Prepared(testprog.LoadFuzz())
	must(f, err)
	must(f, spec.LoadAndAssign(objs, &ebpf.CollectionOptions{MapReplacements: maps}))
}

// fuzzAttachment attaches to a cgroup of the target's own. within runs a function
// with the process in it: a fuzz worker that is started later is in no cgroup of
// its coordinator.
func fuzzAttachment(f *testing.F, policy bpf.Policy) (a *bpf.Attachment, within func(func() error)) {
	f.Helper()
	testutil.RequireRoot(f)
	cg := testutil.Cgroup(f)
	a, err := bpf.Attach(bpf.Options{Cgroup: cg.Path(), SlotsPerCPU: 64, Policy: &policy})
	must(f, err)
	f.Cleanup(func() { _ = a.Close() })
	return a, func(do func() error) {
		f.Helper()
		leave, err := cg.Enter()
		must(f, err)
		must(f, errors.Join(do(), leave()))
	}
}

// testRun runs a program on a packet, and reports whether the kernel took it for
// one.
func testRun(t *testing.T, prog *ebpf.Program, ethertype uint16, packet []byte) bool {
	t.Helper()
	frame := binary.BigEndian.AppendUint16(make([]byte, 12, 14+len(packet)), ethertype)
	ret, err := prog.Run(&ebpf.RunOptions{Data: append(frame, packet...)})
	if errors.Is(err, unix.EINVAL) && len(packet) < 40 {
		return false
	}
	must(t, err)
	if ret != 1 {
		t.Fatalf("the program returned %d", ret)
	}
	return true
}

// runAlone runs a program that does not look at its packet.
func runAlone(t *testing.T, prog *ebpf.Program) {
	t.Helper()
	if !testRun(t, prog, 0x88b5, make([]byte, 64)) {
		t.Fatal("not a packet")
	}
}

// words cuts an area to a size that the kernel allows.
func words(area []byte, most int) []byte { return area[:min(len(area), most)&^3] }

// A tlv is one of an area, padding too.
type tlv struct {
	key   uint8
	value []byte
	whole []byte // with its header and what follows the value
}

// walkTLVs is a second opinion on what package cmsg and the programs do: the
// TLVs of an area without its anchor, and whether they fill it.
func walkTLVs(area []byte) (tlvs []tlv, ok bool) {
	for len(area) > 0 {
		if len(area) < 4 {
			return tlvs, false
		}
		n := int(area[1])
		size := (2 + n + 3) / 4 * 4
		if size > len(area) {
			return tlvs, false
		}
		tlvs = append(tlvs, tlv{area[0], area[2 : 2+n], area[:size]})
		area = area[size:]
	}
	return tlvs, true
}

// recorded is the model of what becomes of an area on its way to a record: what ends
// it is an anchor there, or nothing.
func recorded(h hostSecret, wire []byte) (area []byte, format cmsg.Format, flags cmsg.Flags) {
	rest, format, secret, ok := cutSeal(wire)
	sealed := ok && secret == h.Secret
	// Half of the secret is not shown, wherever it is.
	if !sealed && (bytes.Contains(wire, h.Secret[:4]) || bytes.Contains(wire, h.Secret[4:])) {
		return nil, cmsg.FormatTLV, cmsg.FlagDecapsulated
	}
	if ok {
		if !sealed {
			flags = cmsg.FlagUnanchored
		}
		return cmsg.AppendAnchor(bytes.Clone(rest), format), format, flags
	}
	if _, format, ok := cutAnchor(wire); ok {
		return wire, format, cmsg.FlagUnanchored
	}
	if len(wire) > 0 {
		flags = cmsg.FlagUnanchored
	}
	return wire, cmsg.FormatTLV, flags
}

// cutSeal returns an area without what looks like a seal with its gap, and what that
// states.
func cutSeal(area []byte) (rest []byte, format cmsg.Format, secret [8]byte, ok bool) {
	for _, gap := range []int{4, 0} {
		n := len(area) - 12 - gap
		if n >= 0 && area[n] == 255 && int(area[n+1]) == 10+gap && area[n+2] == 0x5C {
			return area[:n], cmsg.Format(area[n+3]), [8]byte(area[n+4:]), true
		}
	}
	return area, cmsg.FormatTLV, secret, false
}

// cutAnchor returns an area without its anchor, and the format that this states.
func cutAnchor(area []byte) (rest []byte, format cmsg.Format, ok bool) {
	n := len(area) - 4
	if n < 0 || area[n] != 255 || area[n+1] != 2 || area[n+2] != 0x5B {
		return area, cmsg.FormatTLV, false
	}
	return area[:n], cmsg.Format(area[n+3]), true
}

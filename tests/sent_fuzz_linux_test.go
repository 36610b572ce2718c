// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/internal/abi"
	"github.com/sockmeta/sockmeta-go/internal/testprog"
)

// FuzzSent has any record under any policy: bpf/c/tx.h leaves of it what
// abi.TxInfo.Refuses tells applications that it will, counts the rest, and takes
// nothing else for a record.
func FuzzSent(f *testing.F) {
	var objs struct {
		Program  *ebpf.Program  `ebpf:"fuzz_sent"`
		Sent     *ebpf.Variable `ebpf:"sent"`
		Instance *ebpf.Map      `ebpf:"sockmeta_inst"`
		Counts   *ebpf.Map      `ebpf:"sockmeta_count"`
	}
	loadFuzz(f, &objs)
	const asked = abi.ValidMark | abi.ValidPriority | abi.ValidLaunch
	f.Add(uint8(1), uint8(0), uint8(0), asked, uint32(0xff), uint32(6), uint32(0xff), uint32(6), uint32(1), uint32(unix.IPPROTO_UDP))
	f.Add(uint8(1), uint8(252), uint8(2), asked, uint32(0x100), uint32(7), uint32(0xff), uint32(6), uint32(0), uint32(unix.IPPROTO_UDP))
	f.Add(uint8(1), uint8(4), uint8(3), ^uint16(0), uint32(0), uint32(0), uint32(0), uint32(0), uint32(1), uint32(unix.IPPROTO_TCP))
	f.Add(uint8(0), uint8(6), uint8(0), ^asked, ^uint32(0), ^uint32(0), uint32(0), uint32(0), uint32(0), uint32(0))
	f.Add(uint8(2), uint8(255), uint8(1), uint16(0), ^uint32(0), ^uint32(0), ^uint32(0), ^uint32(0), ^uint32(0), uint32(unix.IPPROTO_UDP))

	counts := func(t *testing.T) (sum testprog.FuzzSockmetaCounts) {
		var cpus []testprog.FuzzSockmetaCounts
		must(t, objs.Counts.Lookup(uint32(0), &cpus))
		for _, c := range cpus {
			sum.MarkRefused += c.MarkRefused
			sum.PriorityRefused += c.PriorityRefused
			sum.LaunchRefused += c.LaunchRefused
		}
		return sum
	}
	f.Fuzz(func(t *testing.T, version, areaLen, format uint8, valid uint16, mark, priority, mask, most, launch, protocol uint32) {
		var inst testprog.FuzzSockmetaInstance
		inst.Policy.MarkMask, inst.Policy.PriorityMax, inst.Policy.Launch = mask, most, launch
		must(t, objs.Instance.Put(uint32(0), &inst))
		var in, got testprog.FuzzFuzzSent
		in.Rec.Version, in.Rec.AreaLen, in.Rec.Format, in.Rec.Valid = version, areaLen, format, valid
		in.Rec.Mark, in.Rec.Priority, in.Rec.Launch = mark, priority, uint64(priority)<<32|uint64(mark)
		in.Protocol = protocol
		must(t, objs.Sent.Set(&in))
		before := counts(t)
		runAlone(t, objs.Program)
		must(t, objs.Sent.Get(&got))

		var info abi.TxInfo
		info.Policy.MarkMask, info.Policy.PriorityMax, info.Policy.Launch = mask, most, launch
		rec := abi.Record{Valid: valid, Mark: mark, Priority: priority}
		refused := info.Refuses(&rec, protocol == unix.IPPROTO_UDP)
		want := in
		want.Rec.Valid = valid & asked &^ refused
		if version == abi.RecordVersion && int(areaLen) <= abi.AreaMax && areaLen%4 == 0 && format <= abi.FormatRaw {
			want.Sound = 1
		}
		if got != want {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
		after := counts(t)
		for _, c := range []struct {
			bit  uint16
			more uint64
		}{
			{abi.ValidMark, after.MarkRefused - before.MarkRefused},
			{abi.ValidPriority, after.PriorityRefused - before.PriorityRefused},
			{abi.ValidLaunch, after.LaunchRefused - before.LaunchRefused},
		} {
			if (c.more == 1) != (refused&c.bit != 0) || c.more > 1 {
				t.Errorf("refusals of %#x counted %d times, refused are %#x", c.bit, c.more, refused)
			}
		}
	})
}

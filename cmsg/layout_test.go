// SPDX-License-Identifier: Apache-2.0

package cmsg

import (
	"testing"
	"unsafe"

	"github.com/sockmeta/sockmeta-go/internal/abi"
)

// TestLayout holds the record against struct sockmeta_record as a C compiler
// lays it out, on every architecture.
func TestLayout(t *testing.T) {
	var r abi.Record
	for _, f := range []struct {
		name      string
		got, want uintptr
	}{
		{"version", unsafe.Offsetof(r.Version), 0},
		{"hdr_len", unsafe.Offsetof(r.HdrLen), 1},
		{"area_len", unsafe.Offsetof(r.AreaLen), 2},
		{"format", unsafe.Offsetof(r.Format), 3},
		{"valid", unsafe.Offsetof(r.Valid), 4},
		{"flags", unsafe.Offsetof(r.Flags), 6},
		{"tstamp", unsafe.Offsetof(r.Tstamp), 8},
		{"hwtstamp", unsafe.Offsetof(r.HWTstamp), 16},
		{"mark", unsafe.Offsetof(r.Mark), 24},
		{"priority", unsafe.Offsetof(r.Priority), 28},
		{"hash", unsafe.Offsetof(r.Hash), 32},
		{"ifindex", unsafe.Offsetof(r.IfIndex), 36},
		{"napi_id", unsafe.Offsetof(r.NAPIID), 40},
		{"cpu", unsafe.Offsetof(r.CPU), 44},
		{"vlan_tci", unsafe.Offsetof(r.VLANTCI), 48},
		{"vlan_proto", unsafe.Offsetof(r.VLANProto), 50},
		{"reserved", unsafe.Offsetof(r.Reserved), 52},
		{"launch", unsafe.Offsetof(r.Launch), 56},
		{"area", unsafe.Offsetof(r.Area), 64},
		{"the record", unsafe.Sizeof(r), 320},
		{"Metadata", unsafe.Sizeof(Metadata{}), 320},
		{"Record", unsafe.Sizeof(*new(Metadata).Record()), 320},
		{"alignment", unsafe.Alignof(Metadata{}), unsafe.Alignof(uint64(0))},
	} {
		if f.got != f.want {
			t.Errorf("%s is at, or has, %d, want %d", f.name, f.got, f.want)
		}
	}
}

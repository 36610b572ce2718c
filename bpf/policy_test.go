// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"
	"unsafe"

	"github.com/sockmeta/sockmeta-go/internal/abi"
)

func TestPolicyEncode(t *testing.T) {
	for _, tt := range []struct {
		name string
		p    Policy
		want abi.Policy
	}{
		{"zero value", Policy{}, abi.Policy{}},
		{"default", DefaultPolicy(), abi.Policy{PriorityMax: 6, Launch: 1}},
		{"mark", Policy{MarkMask: 0xff00}, abi.Policy{MarkMask: 0xff00}},
		{"priority", Policy{MaxPriority: 1}, abi.Policy{PriorityMax: 1}},
		{"high priority", Policy{MaxPriority: ^uint32(0)}, abi.Policy{PriorityMax: ^uint32(0)}},
		{"launch times", Policy{LaunchTimes: true}, abi.Policy{Launch: 1}},
		{"local", Policy{LocalKeys: []uint8{abi.KeyTraceID, 63, 64, 254, 254}},
			abi.Policy{Crosses: 1, Local: [4]uint64{1<<abi.KeyTraceID | 1<<63, 1, 0, 1 << 62}}},
		{"not the area's own", Policy{LocalKeys: []uint8{abi.KeyPad, abi.KeyAnchor, abi.KeySender}}, abi.Policy{}},
	} {
		if got := tt.p.encode(); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

// TestPolicyEncodesEveryKey has each key be a bit of its own.
func TestPolicyEncodesEveryKey(t *testing.T) {
	seen := make(map[[4]uint64]uint8)
	for key := range 256 {
		k := uint8(key)
		p := Policy{LocalKeys: []uint8{k}}
		bits := p.encode().Local
		if k == abi.KeyPad || k == abi.KeyAnchor || k == abi.KeySender {
			if bits != [4]uint64{} {
				t.Errorf("key %d crosses", k)
			}
			continue
		}
		if other, taken := seen[bits]; taken || bits == [4]uint64{} {
			t.Errorf("key %d is %x, and key %d", k, bits, other)
		}
		seen[bits] = k
	}
}

func TestRefuses(t *testing.T) {
	const all = abi.ValidMark | abi.ValidPriority | abi.ValidLaunch
	var (
		open   = Policy{MarkMask: ^uint32(0), MaxPriority: ^uint32(0), LaunchTimes: true}
		closed = Policy{}
		some   = Policy{MarkMask: 0xf0, MaxPriority: 3}
	)
	for _, tt := range []struct {
		name     string
		p        Policy
		rec      abi.Record
		datagram bool
		want     uint16
	}{
		{"nothing asked", closed, abi.Record{Mark: 1, Priority: 7, Launch: 1}, true, 0},
		{"others asked", closed, abi.Record{Valid: ^all, Mark: 1, Priority: 7, Launch: 1}, true, 0},
		{"all allowed", open, abi.Record{Valid: all, Mark: ^uint32(0), Priority: ^uint32(0), Launch: 1}, true, 0},
		{"all refused", closed, abi.Record{Valid: all, Mark: 1, Priority: 7, Launch: 1}, true, all},
		{"lowest priority", closed, abi.Record{Valid: abi.ValidPriority}, true, 0},
		{"next priority", closed, abi.Record{Valid: abi.ValidPriority, Priority: 1}, true, abi.ValidPriority},
		{"default", DefaultPolicy(), abi.Record{Valid: all, Mark: 1, Priority: 6, Launch: 1}, true, abi.ValidMark},
		{"bits of the mask", some, abi.Record{Valid: abi.ValidMark, Mark: 0x50}, true, 0},
		{"no bit", some, abi.Record{Valid: abi.ValidMark}, true, 0},
		{"one bit more", some, abi.Record{Valid: abi.ValidMark, Mark: 0x51}, true, abi.ValidMark},
		{"highest priority", some, abi.Record{Valid: abi.ValidPriority, Priority: 3}, true, 0},
		{"one higher", some, abi.Record{Valid: abi.ValidPriority, Priority: 4}, true, abi.ValidPriority},
		{"launch time of a stream", open, abi.Record{Valid: all, Launch: 1}, false, abi.ValidLaunch},
	} {
		info := abi.TxInfo{Policy: tt.p.encode()}
		words := (*abi.Record)(unsafe.Pointer(&tt.rec))
		if got := info.Refuses(words, tt.datagram); got != tt.want {
			t.Errorf("%s: %#x, want %#x", tt.name, got, tt.want)
		}
	}
}

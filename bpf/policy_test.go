// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"
	"unsafe"
)

func TestPolicyEncode(t *testing.T) {
	for _, tt := range []struct {
		name string
		p    Policy
		want policy
	}{
		{"zero value", Policy{}, policy{PriorityMax: 6, Launch: 1}},
		{"mark", Policy{MarkMask: 0xff00}, policy{MarkMask: 0xff00, PriorityMax: 6, Launch: 1}},
		{"priority", Policy{MaxPriority: 1}, policy{PriorityMax: 1, Launch: 1}},
		{"high priority", Policy{MaxPriority: ^uint32(0)}, policy{PriorityMax: ^uint32(0), Launch: 1}},
		{"no launch times", Policy{RefuseLaunchTimes: true}, policy{PriorityMax: 6}},
		{"local", Policy{LocalKeys: []uint8{KeyTraceID, 63, 64, 254, 254}},
			policy{PriorityMax: 6, Launch: 1, Crosses: 1, Local: [4]uint64{1<<KeyTraceID | 1<<63, 1, 0, 1 << 62}}},
		{"not the area's own", Policy{LocalKeys: []uint8{KeyPad, KeyAnchor, KeySender}}, policy{PriorityMax: 6, Launch: 1}},
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
		if k == KeyPad || k == KeyAnchor || k == KeySender {
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
	const all = ValidMark | ValidPriority | ValidLaunch
	var (
		open   = Policy{MarkMask: ^uint32(0), MaxPriority: ^uint32(0)}
		closed = Policy{RefuseLaunchTimes: true}
		some   = Policy{MarkMask: 0xf0, MaxPriority: 3}
	)
	for _, tt := range []struct {
		name     string
		p        Policy
		rec      Record
		datagram bool
		want     uint16
	}{
		{"nothing asked", closed, Record{Mark: 1, Priority: 7, Launch: 1}, true, 0},
		{"others asked", closed, Record{Valid: ^all, Mark: 1, Priority: 7, Launch: 1}, true, 0},
		{"all allowed", open, Record{Valid: all, Mark: ^uint32(0), Priority: ^uint32(0), Launch: 1}, true, 0},
		{"all refused", closed, Record{Valid: all, Mark: 1, Priority: 7, Launch: 1}, true, all},
		{"default", Policy{}, Record{Valid: all, Mark: 1, Priority: 6, Launch: 1}, true, ValidMark},
		{"bits of the mask", some, Record{Valid: ValidMark, Mark: 0x50}, true, 0},
		{"no bit", some, Record{Valid: ValidMark}, true, 0},
		{"one bit more", some, Record{Valid: ValidMark, Mark: 0x51}, true, ValidMark},
		{"highest priority", some, Record{Valid: ValidPriority, Priority: 3}, true, 0},
		{"one higher", some, Record{Valid: ValidPriority, Priority: 4}, true, ValidPriority},
		{"launch time of a stream", open, Record{Valid: all, Launch: 1}, false, ValidLaunch},
	} {
		info := TxInfo{Policy: tt.p.encode()}
		words := (*[RecordWords]uint64)(unsafe.Pointer(&tt.rec))
		if got := info.Refuses(words, tt.datagram); got != tt.want {
			t.Errorf("%s: %#x, want %#x", tt.name, got, tt.want)
		}
	}
}

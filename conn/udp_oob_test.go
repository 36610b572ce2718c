// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/abi"
)

// TestTimestamping has the three times of SO_TIMESTAMPING as no lab has them:
// the NIC's among them. What the kernel wrote went by flags that include ours.
func TestTimestamping(t *testing.T) {
	const (
		handle   = abi.HandleBit | 5<<24 | 7
		seconds  = 1_700_000_000
		hardware = 123
		software = tsSoftware | tsRxSoftware
		raw      = tsRawHardware | tsRxHardware
	)
	stamp := time.Unix(seconds, 456)
	for _, tt := range []struct {
		name     string
		flags    uint32
		first    uint64 // what the kernel wrote as software's time, ns
		hardware uint64 // and as the NIC's
		known    bool   // the record has the time
		want     [3]uint64
		nothing  bool
	}{
		{name: "nothing asked", first: handle, known: true, nothing: true},
		{name: "software", flags: software, first: handle, known: true, want: [3]uint64{seconds*1e9 + 456}},
		{name: "software, not known", flags: software, first: handle, nothing: true},
		{name: "software and hardware", flags: software | raw, first: handle, hardware: hardware, known: true, want: [3]uint64{seconds*1e9 + 456, 0, hardware}},
		{name: "hardware", flags: raw, first: handle, hardware: hardware, known: true, want: [3]uint64{0, 0, hardware}},
		{name: "hardware, that was not taken", flags: raw, first: handle, known: true, nothing: true},
		{name: "hardware, not asked", flags: software, first: handle, hardware: hardware, known: true, want: [3]uint64{seconds*1e9 + 456}},
		{name: "hardware, not reported", flags: tsRxHardware, first: handle, hardware: hardware, known: true, nothing: true},
		{name: "hardware, others take", flags: tsRawHardware, first: handle, hardware: hardware, known: true, want: [3]uint64{0, 0, hardware}},
		{name: "hardware, others take, filter", flags: tsRawHardware | tsRxFilter, first: handle, hardware: hardware, known: true, nothing: true},
		{name: "software, others take", flags: tsSoftware, first: handle, known: true, want: [3]uint64{seconds*1e9 + 456}},
		{name: "software, others take, filter", flags: tsSoftware | tsRxFilter, first: handle, known: true, nothing: true},
		{name: "filter, and both take", flags: software | raw | tsRxFilter, first: handle, hardware: hardware, known: true, want: [3]uint64{seconds*1e9 + 456, 0, hardware}},
		{name: "no handle", flags: software, first: 789, want: [3]uint64{789}},
		{name: "no handle, not asked", first: 789, nothing: true},
		{name: "no handle, hardware", flags: raw, first: 789, hardware: hardware, want: [3]uint64{0, 0, hardware}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			msg := cmsg.Message{Level: solSocket, Type: scmTimestampingOld, Data: threeTimes([3]uint64{tt.first, 0, tt.hardware})}
			ts := times{kind: kindOf(msg), msg: msg, tsflags: tt.flags, tstamp: stamp, known: tt.known}
			if ts.kind != kindTimestamping {
				t.Fatalf("kind is %d", ts.kind)
			}
			oob := cmsg.Append(nil, solSocket, scmTimestampingOld, msg.Data)
			ts.handle = findHandle(oob)
			if want := tt.first & -(tt.first >> 62 & 1); ts.handle != want {
				t.Fatalf("handle is %#x, want %#x", ts.handle, want)
			}
			var data [timestampingLen]byte
			n := ts.translate(&data)
			if tt.nothing {
				if n != 0 {
					t.Errorf("got %x", data[:n])
				}
				return
			}
			if want := threeTimes(tt.want); !bytes.Equal(data[:n], want) {
				t.Errorf("got  %x\nwant %x", data[:n], want)
			}
		})
	}
}

func threeTimes(ns [3]uint64) (b []byte) {
	for _, t := range ns {
		b = binary.NativeEndian.AppendUint64(b, t/1e9)
		b = binary.NativeEndian.AppendUint64(b, t%1e9)
	}
	return b
}

// TestPutTime has both sizes of the messages with one time: 32-bit systems
// have old ones of 8 bytes.
func TestPutTime(t *testing.T) {
	at := time.Unix(1_700_000_000, 123_456_789)
	for _, tt := range []struct {
		kind     kind
		size     int
		fraction uint64
	}{
		{kindTimeval, 16, 123_456},
		{kindTimespec, 16, 123_456_789},
		{kindTimeval, 8, 123_456},
		{kindTimespec, 8, 123_456_789},
	} {
		var data [timestampingLen]byte
		n := putTime(data[:], at, tt.kind, tt.size)
		if n != tt.size {
			t.Errorf("kind %d: %d bytes, want %d", tt.kind, n, tt.size)
			continue
		}
		var sec, fraction uint64
		if n == 8 {
			sec, fraction = uint64(binary.NativeEndian.Uint32(data[:])), uint64(binary.NativeEndian.Uint32(data[4:]))
		} else {
			sec, fraction = binary.NativeEndian.Uint64(data[:]), binary.NativeEndian.Uint64(data[8:])
		}
		if sec != 1_700_000_000 || fraction != tt.fraction {
			t.Errorf("kind %d of %d bytes: %d and %d", tt.kind, n, sec, fraction)
		}
	}
}

// TestFindHandle looks into control messages of every form.
func TestFindHandle(t *testing.T) {
	const handle = abi.HandleBit | 99
	own := cmsg.Append(nil, solSocket, scmTimestampingNew, threeTimes([3]uint64{handle}))
	other := cmsg.Append(nil, 0, 8, make([]byte, 12))
	if got := findHandle(append(bytes.Clone(other), own...)); got != handle {
		t.Errorf("behind another: %#x", got)
	}
	for n := range len(own) {
		if got := findHandle(own[:n]); got != 0 {
			t.Errorf("in %d bytes: %#x", n, got)
		}
	}
	// The same bytes under another level or type are the application's.
	for _, m := range []struct{ level, typ int }{{solSocket + 1, scmTimestampingOld}, {solSocket, scmTimestampOld}} {
		if got := findHandle(cmsg.Append(nil, m.level, m.typ, threeTimes([3]uint64{handle}))); got != 0 {
			t.Errorf("level %d, type %d: %#x", m.level, m.typ, got)
		}
	}
}

// TestSupportText has all that there is to say.
func TestSupportText(t *testing.T) {
	for _, tt := range []struct {
		s    Support
		want string
	}{
		{Support{}, "none"},
		{Support{Tier: TierHandle, Mapped: true}, "handle (mapped)"},
		{Support{Tier: TierHandle}, "handle (getsockopt)"},
		{Support{Tier: TierNative}, "native"},
		{Support{Missing: []Missing{{TierHandle, ErrNotSupported}}}, "none: " + ErrNotSupported.Error()},
		{Support{Tier: Tier(9)}, "Tier(9) (getsockopt)"},
	} {
		if got := tt.s.String(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
	none := Support{Missing: []Missing{{TierHandle, ErrNotSupported}, {TierTracing, ErrNoMetadata}}}
	if none.Err() != ErrNotSupported {
		t.Errorf("error is %v", none.Err())
	}
	none.Tier = TierHandle
	if none.Err() != nil {
		t.Errorf("error is %v", none.Err())
	}
}

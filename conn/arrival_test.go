// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"bytes"
	"testing"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
)

// TestFindRecord looks for the record that the native tier puts, among messages of
// others, and for handles where the application's times would be.
func TestFindRecord(t *testing.T) {
	const handle = bpf.HandleBit | 99
	var md cmsg.Metadata
	md.SetMark(7)
	record, err := md.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	other := cmsg.Append(nil, 0, 8, make([]byte, 12))
	own := cmsg.Append(nil, cmsg.SOL_BPF, cmsg.SCM_RECORD, record)
	times := threeTimes([3]uint64{handle})
	for _, tt := range []struct {
		name   string
		oob    []byte
		record []byte
		handle uint64
	}{
		{"nothing", nil, nil, 0},
		{"another's", other, nil, 0},
		{"record", own, record, 0},
		{"record in the middle", append(append(bytes.Clone(other), own...), other...), record, 0},
		{"of another level", cmsg.Append(nil, cmsg.SOL_BPF+1, cmsg.SCM_RECORD, record), nil, 0},
		{"of another type", cmsg.Append(nil, cmsg.SOL_BPF, cmsg.SCM_RECORD+1, record), nil, 0},
		{"SCM_TIMESTAMPING", append(cmsg.Append(nil, solSocket, scmTimestampingOld, times), own...), record, handle},
		{"SCM_TIMESTAMPNS", cmsg.Append(nil, solSocket, scmTimestampnsNew, times[:timespecLen]), nil, handle},
		{"real time", cmsg.Append(nil, solSocket, scmTimestampnsNew, threeTimes([3]uint64{1 << 60})[:timespecLen]), nil, 0},
		{"short time", cmsg.Append(nil, solSocket, scmTimestampnsOld, times[:8]), nil, 0},
	} {
		a := findRecord(tt.oob)
		if !bytes.Equal(a.record, tt.record) || (a.record == nil) != (tt.record == nil) || a.handle != tt.handle {
			t.Errorf("%s: % x, %#x", tt.name, a.record, a.handle)
		}
	}
}

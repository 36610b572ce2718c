// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"bytes"
	"errors"
	"net"
	"testing"

	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/abi"
)

// TestFindRecord looks for the record that the native tier puts, among messages of
// others, and for handles where the application's times would be.
func TestFindRecord(t *testing.T) {
	const handle = abi.HandleBit | 99
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

// TestArrivalCut has datagrams of the native tier whose record did not get into the
// buffer.
func TestArrivalCut(t *testing.T) {
	u, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	raw, err := u.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	other := cmsg.Append(nil, solSocket, 99, []byte("data"))
	record := cmsg.Append(other, cmsg.SOL_BPF, cmsg.SCM_RECORD, make([]byte, 64))
	for _, tt := range []struct {
		name    string
		carrier carrier
		oob     []byte
		flags   int
		room    int
		want    error
		// caller are the flags that the caller sees.
		caller int
	}{
		{"no record", new(native), other, 0, 64, ErrNoMetadata, 0},
		{"cut", new(native), other, msgCtrunc, 64, ErrTruncated, 0},
		{"cut, and another", new(native), other, msgCtrunc, 8, ErrTruncated, msgCtrunc},
		{"cut behind the record", new(native), record, msgCtrunc, 0, cmsg.ErrVersion, msgCtrunc},
		{"cut, by the handle", new(mapped), other, msgCtrunc, 0, ErrNoMetadata, msgCtrunc},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := &UDPConn{carrier: static{tt.carrier}, sock: socket{raw: raw}, errNoMetadata: ErrNoMetadata, udp: u}
			var md cmsg.Metadata
			a := c.carrier.locate(tt.oob, tt.flags)
			if err := c.fetch(&came{arrival: a, md: &md}); !errors.Is(err, tt.want) || !md.IsEmpty() {
				t.Errorf("got %v, %v; want %v", &md, err, tt.want)
			}
			if got := a.callersFlags(tt.flags, tt.room); got != tt.caller {
				t.Errorf("the caller's flags are %#x, want %#x", got, tt.caller)
			}
		})
	}
}

// TestArrivalRemembered asks for the last metadata after datagrams of the native tier, whose
// buffer is used again.
func TestArrivalRemembered(t *testing.T) {
	u, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	raw, err := u.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	c := &UDPConn{carrier: static{new(native)}, sock: socket{raw: raw}, errNoMetadata: ErrNoMetadata, udp: u}
	check := func(when string, mark uint32, want error) {
		t.Helper()
		for range 2 {
			md, err := c.Metadata()
			if !errors.Is(err, want) || (want == nil) != (err == nil) {
				t.Errorf("%s: %v, want %v", when, err, want)
			}
			if got, ok := md.Mark(); ok != (mark != 0) || got != mark {
				t.Errorf("%s: mark %#x, %v, want %#x", when, got, ok, mark)
			}
		}
	}
	check("before any", 0, ErrNoMetadata)
	for _, mark := range []uint32{7, 8} {
		var md cmsg.Metadata
		md.SetMark(mark)
		record, err := md.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		c.carrier.remember(&arrival{record: record})
		clear(record)
		check("after a record", mark, nil)
	}
	c.carrier.remember(&arrival{cut: true})
	check("after one that was cut", 0, ErrTruncated)
	c.carrier.remember(&arrival{record: []byte{}})
	check("after an empty one", 0, ErrTruncated)
	c.carrier.remember(&arrival{handle: abi.HandleBit | 1})
	check("after none", 0, ErrNoMetadata)
}

// TestOpenHandleAlone leaves out the handle alone, and nothing else: two of the
// application's messages may be as long as it is.
func TestOpenHandleAlone(t *testing.T) {
	handle := threeTimes([3]uint64{abi.HandleBit | 1})
	own := cmsg.Append(nil, solSocket, scmTimestampingNew, handle)
	time := cmsg.Append(nil, solSocket, scmTimestampnsNew, handle[:timespecLen])
	other := cmsg.Append(nil, 0, 8, make([]byte, len(own)-len(time)-cmsg.HeaderLen))
	for _, tt := range []struct {
		name    string
		carrier carrier
		got     []byte
		want    []byte
	}{
		{"handle", new(mapped), own, nil},
		{"handle and another", new(mapped), append(bytes.Clone(own), other...), other},
		{"as long as a handle", new(native), append(bytes.Clone(time), other...), other},
	} {
		c := &UDPConn{carrier: static{tt.carrier}, errNoMetadata: ErrNoMetadata}
		c.detached.err.Store(&c.errNoMetadata)
		var md cmsg.Metadata
		oob := make([]byte, 128)
		n, flags := c.open(&came{arrival: tt.carrier.locate(tt.got, 0), got: tt.got, md: &md, socket: &tsFlags{known: true}}, oob)
		if !bytes.Equal(oob[:n], tt.want) || flags != 0 {
			t.Errorf("%s: % x, %#x; want % x", tt.name, oob[:n], flags, tt.want)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package sockmeta

import (
	"errors"
	"fmt"
	"net"
	"reflect"
	"syscall"
	"testing"
	"time"

	"github.com/sockmeta/sockmeta-go/bpf"
)

// TestLetInZero calls all methods of what is no connection: zero values, nil pointers
// and wrappers of either. They do what those of package net do, and metadata calls,
// which net does not have, return syscall.EINVAL. Nothing panics or waits.
func TestLetInZero(t *testing.T) {
	for _, tt := range []struct {
		name      string
		ours, net any
	}{
		{"zero UDPConn", &UDPConn{}, &net.UDPConn{}},
		{"nil UDPConn", (*UDPConn)(nil), (*net.UDPConn)(nil)},
		{"UDPConn of zero", WrapUDP(&net.UDPConn{}), &net.UDPConn{}},
		{"UDPConn of nil", WrapUDP(nil), (*net.UDPConn)(nil)},
		{"zero TCPConn", &TCPConn{}, &net.TCPConn{}},
		{"nil TCPConn", (*TCPConn)(nil), (*net.TCPConn)(nil)},
		{"TCPConn of zero", WrapTCP(&net.TCPConn{}), &net.TCPConn{}},
		{"TCPConn of nil", WrapTCP(nil), (*net.TCPConn)(nil)},
		{"zero TCPListener", &TCPListener{}, &net.TCPListener{}},
		{"nil TCPListener", (*TCPListener)(nil), (*net.TCPListener)(nil)},
		{"zero PeerConn", &PeerConn{}, &net.UDPConn{}},
		{"PeerConn of zero", NewPeerConn(&UDPConn{}, PeerOptions{}), &net.UDPConn{}},
		{"zero PeerListener", &PeerListener{}, &net.TCPListener{}},
		{"PeerListener of zero", NewPeerListener(&TCPListener{}), &net.TCPListener{}},
		{"zero ReplyConn", &ReplyConn{}, &net.UDPConn{}},
		{"nil ReplyConn", (*ReplyConn)(nil), (*net.UDPConn)(nil)},
		{"zero TxSlots", &bpf.TxSlots{}, nil},
		{"nil TxSlots", (*bpf.TxSlots)(nil), nil},
		{"zero Slots", &bpf.Slots{}, nil},
		{"nil Slots", (*bpf.Slots)(nil), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := reflect.ValueOf(tt.ours)
			for m := range v.Type().Methods() {
				for _, full := range []bool{false, true} {
					got := callZero(v, m.Name, full)
					want := got
					if tt.net != nil && reflect.ValueOf(tt.net).MethodByName(m.Name).IsValid() {
						want = callZero(reflect.ValueOf(tt.net), m.Name, full)
					}
					got.check(t, fmt.Sprintf("%s, full %v", m.Name, full), want)
				}
			}
		})
	}
}

// TestLetInZeroPrograms has no method of a zero value of what attaches panic or wait.
func TestLetInZeroPrograms(t *testing.T) {
	for _, v := range []any{&bpf.Attachment{}, &bpf.Producer{}, &bpf.Local{}} {
		for m := range reflect.TypeOf(v).Methods() {
			if r := callZero(reflect.ValueOf(v), m.Name, false); r.panicked != nil || r.hung {
				t.Errorf("%T.%s: panic %v, hung %v", v, m.Name, r.panicked, r.hung)
			}
		}
	}
}

// TestLetInZeroPeers has the methods that a nil PeerConn and a nil PeerListener have
// of their own.
func TestLetInZeroPeers(t *testing.T) {
	for _, v := range []any{(*PeerConn)(nil), (*PeerListener)(nil)} {
		for _, name := range []string{
			"OpeningMetadata", "LatestMetadata", "Forget", "Peers", "ReadMetadata", "Read", "ReadFrom", "ReadFromUDP",
			"ReadFromUDPAddrPort", "ReadMsgUDP", "ReadMsgUDPAddrPort", "ReadBatch", "ReadBatchMetadata", "Accept", "AcceptTCP", "Conn",
		} {
			if reflect.ValueOf(v).MethodByName(name).IsValid() {
				got := callZero(reflect.ValueOf(v), name, true)
				got.check(t, fmt.Sprintf("%T.%s", v, name), got)
			}
		}
	}
	if _, err := NewReplyConn(nil); !errors.Is(err, syscall.EINVAL) {
		t.Error(err)
	}
}

// A result is what a call did.
type result struct {
	out      []reflect.Value
	panicked any
	hung     bool
}

// callZero calls a method with zero arguments, or with ones that have something in
// them.
func callZero(v reflect.Value, name string, full bool) result {
	done := make(chan result, 1)
	go func() {
		var r result
		defer func() {
			r.panicked = recover()
			done <- r
		}()
		m := v.MethodByName(name)
		var args []reflect.Value
		for in := range m.Type().Ins() {
			arg := reflect.Zero(in)
			switch {
			case !full:
			case in.Kind() == reflect.Pointer:
				arg = reflect.New(in.Elem())
			case in.Kind() == reflect.Slice:
				arg = reflect.MakeSlice(in, 2, 2)
			}
			if md, ok := arg.Interface().(*Metadata); ok && md != nil {
				md.SetPriority(1)
			}
			args = append(args, arg)
		}
		r.out = m.Call(args)
	}()
	select {
	case r := <-done:
		return r
	case <-time.After(time.Minute):
		return result{hung: true}
	}
}

var errorType = reflect.TypeFor[error]()

func (r result) check(t *testing.T, what string, want result) {
	t.Helper()
	if r.panicked != nil || r.hung {
		t.Errorf("%s: panic %v, hung %v", what, r.panicked, r.hung)
		return
	}
	for i, out := range r.out {
		if s, ok := out.Interface().(Support); ok && (!errors.Is(s.Err(), syscall.EINVAL) || !errors.Is(s.Err(), ErrNotSupported)) {
			t.Errorf("%s: %v", what, s)
		}
		if want.panicked != nil {
			continue
		}
		if out.Type() != errorType {
			if out.Type() == want.out[i].Type() && !reflect.DeepEqual(out.Interface(), want.out[i].Interface()) {
				t.Errorf("%s returns %v, net %v", what, out, want.out[i])
			}
			continue
		}
		err, _ := out.Interface().(error)
		wantErr, _ := want.out[i].Interface().(error)
		if !errors.Is(err, syscall.EINVAL) && !errors.Is(err, ErrNoMetadata) || err != wantErr && fmt.Sprint(err) != fmt.Sprint(wantErr) {
			t.Errorf("%s: %v, net %v", what, err, wantErr)
		}
	}
}

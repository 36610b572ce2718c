// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRequestAttributes(t *testing.T) {
	r := newRequest(unix.RTM_NEWLINK, 0, unix.IfInfomsg{})
	start := len(r.buf)
	r.string(unix.IFLA_IFNAME, "abcd")
	r.nest(unix.IFLA_LINKINFO, func() {
		r.string(unix.IFLA_INFO_KIND, "vlan")
		r.nest(unix.IFLA_INFO_DATA, func() { r.uint16(unix.IFLA_VLAN_ID, 7) })
	})
	r.uint32(unix.IFLA_MTU, 1400)

	if len(r.buf)%unix.NLA_ALIGNTO != 0 {
		t.Errorf("length %d isn't aligned", len(r.buf))
	}
	attrs := r.buf[start:]
	if v, ok := attribute(attrs, unix.IFLA_IFNAME); !ok || string(v) != "abcd\x00" {
		t.Errorf("name is %q", v)
	}
	if v, ok := attribute(attrs, unix.IFLA_MTU); !ok || binary.NativeEndian.Uint32(v) != 1400 {
		t.Errorf("mtu is %v", v)
	}
	info, _ := attribute(attrs, unix.IFLA_LINKINFO)
	data, _ := attribute(info, unix.IFLA_INFO_DATA)
	if v, ok := attribute(data, unix.IFLA_VLAN_ID); !ok || binary.NativeEndian.Uint16(v) != 7 {
		t.Errorf("vlan id is %v", v)
	}
	if _, ok := attribute(attrs, unix.IFLA_ADDRESS); ok {
		t.Error("found an attribute that isn't there")
	}
}

func TestParseReply(t *testing.T) {
	ack := func(errno int32, flags uint16, attrs ...byte) []byte {
		r := &request{}
		r.append(unix.NlMsghdr{Type: unix.NLMSG_ERROR, Flags: flags})
		r.append(unix.NlMsgerr{Error: -errno})
		r.buf = append(r.buf, attrs...)
		binary.NativeEndian.PutUint32(r.buf, uint32(len(r.buf)))
		return r.buf
	}
	text := &request{}
	text.string(unix.NLMSGERR_ATTR_MSG, "no such thing")

	if _, err := parseReply(ack(0, 0)); err != nil {
		t.Errorf("acknowledgement: %v", err)
	}
	if _, err := parseReply(ack(int32(unix.EPERM), 0)); err != unix.EPERM {
		t.Errorf("refusal: %v", err)
	}
	_, err := parseReply(ack(int32(unix.EOPNOTSUPP), unix.NLM_F_ACK_TLVS, text.buf...))
	if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "(no such thing)") {
		t.Errorf("refusal with a message: %v", err)
	}
	whole := ack(int32(unix.EPERM), 0)
	for n := range whole {
		if _, err := parseReply(whole[:n]); err != errShort {
			t.Errorf("%d of %d bytes: %v", n, len(whole), err)
		}
	}
}

func FuzzParseReply(f *testing.F) {
	r := newRequest(unix.NLMSG_ERROR, unix.NLM_F_ACK_TLVS, unix.NlMsgerr{Error: -1})
	r.string(unix.NLMSGERR_ATTR_MSG, "text")
	binary.NativeEndian.PutUint32(r.buf, uint32(len(r.buf)))
	f.Add(r.buf)
	f.Fuzz(func(t *testing.T, b []byte) {
		payload, err := parseReply(b)
		if err != nil && payload != nil {
			t.Errorf("payload %v with error %v", payload, err)
		}
		attribute(payload, unix.IFLA_OPERSTATE)
	})
}

func TestHaveRoutes(t *testing.T) {
	const addrs = `fe8000000000000084210cfffea4427b 02 40 20 80  client0
20010db8000000000000000000000001 03 40 00 82  server0
fe80000000000000842ec3fffea4427b 04 40 20 c0 tentative0
`
	const routes = `20010db8000000000000000000000001 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001  server0
fe8000000000000084210cfffea4427b 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000002 00000000 80200001  client0
fe80000000000000842ec3fffea4427b 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000002 00000000 80200001 tentative0
`
	for name, want := range map[string]bool{"client0": true, "server0": false, "tentative0": false, "none": true} {
		if got := haveRoutes(addrs, routes, name); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

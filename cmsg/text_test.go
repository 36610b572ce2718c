// SPDX-License-Identifier: Apache-2.0

package cmsg

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

var (
	_ fmt.Stringer   = Metadata{}
	_ json.Marshaler = Metadata{}
	_ slog.LogValuer = Metadata{}
)

func textRecord(t *testing.T) Metadata {
	t.Helper()
	m := fullRecord()
	m.rec.AreaLen = 0
	for _, err := range []error{
		m.SetBytes(16, []byte("\x0a\xbc")),
		m.SetBytes(KeyTraceID, []byte("0123456789abcdef")),
		m.SetUint32(KeyServiceID, 7),
		m.SetUint64(KeyPacketID, 1<<64-1),
		m.SetBytes(KeyKtime, []byte{1, 2}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func TestString(t *testing.T) {
	m := textRecord(t)
	want := "time=2023-11-14T22:13:20.123456789Z hwtime=2020-09-13T12:26:40.000000001Z launch=86400000000007 " +
		"mark=0xf0000001 prio=6 hash=0xdeadbeef vlan=0x6064 vlan_proto=0x88a8 ifindex=3 napi_id=8193 cpu=5 " +
		"flags=aggregate ktime=0x0102 packet_id=18446744073709551615 service_id=7 " +
		"trace_id=0x30313233343536373839616263646566 16=0x0abc"
	if got := m.String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := fmt.Sprint(m, &m); got != want+" "+want {
		t.Errorf("printed as %s", got)
	}
}

func TestStringOfAreas(t *testing.T) {
	tests := []struct {
		area  string
		f     Format
		flags Flags
		want  string
	}{
		{"", FormatTLV, 0, "(empty)"},
		{"", FormatRaw, 0, "(empty)"},
		{"", FormatTLV, FlagDecapsulated, "flags=decapsulated"},
		{"abcd", FormatRaw, 0, "format=raw area=0x61626364"},
		{"\x10\x03ab", FormatTLV, 0, `error="sockmeta: malformed: TLV at byte 0 of the area" area=0x10036162`},
		{"\x10\x02ab", FormatTLV, FlagTruncated, `flags=truncated error="sockmeta: truncated: area ends after byte 4" 16=0x6162`},
		{"\x10\x02ab\x10\x02cd" + anchor, FormatTLV, 0, "16=0x6162"},
	}
	for _, tt := range tests {
		var m Metadata
		m.rec.AreaLen = uint8(copy(m.rec.Area[:], tt.area))
		m.rec.Format, m.rec.Flags = uint8(tt.f), uint16(tt.flags)
		if got := m.String(); got != tt.want {
			t.Errorf("%q: got %s, want %s", tt.area, got, tt.want)
		}
		if b, err := json.Marshal(m); err != nil || !json.Valid(b) {
			t.Errorf("%q: JSON %s, %v", tt.area, b, err)
		}
	}
}

func TestMarshalJSON(t *testing.T) {
	want := `{"time":"2023-11-14T22:13:20.123456789Z","hwtime":"2020-09-13T12:26:40.000000001Z","launch":86400000000007,` +
		`"mark":4026531841,"prio":6,"hash":3735928559,"vlan":24676,"vlan_proto":34984,"ifindex":3,"napi_id":8193,"cpu":5,` +
		`"flags":"aggregate","ktime":"0x0102","packet_id":18446744073709551615,"service_id":7,` +
		`"trace_id":"0x30313233343536373839616263646566","16":"0x0abc"}`
	m := textRecord(t)
	for _, v := range []any{m, &m} {
		got, err := json.Marshal(v)
		if err != nil || string(got) != want {
			t.Errorf("got  %s, %v\nwant %s", got, err, want)
		}
	}
	if got, err := json.Marshal(Metadata{}); err != nil || string(got) != "{}" {
		t.Errorf("empty: %s, %v", got, err)
	}
}

func TestLogValue(t *testing.T) {
	var b strings.Builder
	drop := func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	log := slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{ReplaceAttr: drop}))
	log.Info("got", "meta", textRecord(t))
	want := "level=INFO msg=got meta.time=2023-11-14T22:13:20.123Z meta.hwtime=2020-09-13T12:26:40.000Z meta.launch=86400000000007 " +
		"meta.mark=4026531841 meta.prio=6 meta.hash=3735928559 meta.vlan=24676 meta.vlan_proto=34984 " +
		"meta.ifindex=3 meta.napi_id=8193 meta.cpu=5 meta.flags=aggregate meta.ktime=0x0102 " +
		"meta.packet_id=18446744073709551615 meta.service_id=7 " +
		"meta.trace_id=0x30313233343536373839616263646566 meta.16=0x0abc\n"
	if b.String() != want {
		t.Errorf("got  %swant %s", b.String(), want)
	}
}

func TestNames(t *testing.T) {
	for _, tt := range []struct {
		v    fmt.Stringer
		want string
	}{
		{KeyPad, "pad"}, {KeyPacketID, "packet_id"}, {KeyKtime, "ktime"}, {KeyServiceID, "service_id"},
		{KeyTraceID, "trace_id"}, {KeyTunnelID, "tunnel_id"}, {KeyUser, "16"}, {KeyDynamic, "128"},
		{KeyAnchor, "anchor"}, {KeySender, "sender"}, {Key(7), "7"},
		{FormatTLV, "tlv"}, {FormatStruct, "struct"}, {FormatRaw, "raw"}, {Format(7), "format(7)"},
		{Flags(0), "none"}, {FlagAggregate, "aggregate"}, {Flags(1 << 15), "0x8000"},
		{FlagTruncated | FlagUnanchored | 1<<14, "unanchored|truncated|0x4000"},
		{Flags(0x2FF), "unanchored|decapsulated|unreadable|aggregate|synack|handshake_ack|repeated|truncated|sender_lost"},
	} {
		if got := tt.v.String(); got != tt.want {
			t.Errorf("%T: got %s, want %s", tt.v, got, tt.want)
		}
	}
}

func TestFlagsHas(t *testing.T) {
	f := FlagSynAck | FlagRepeated
	if !f.Has(FlagSynAck) || !f.Has(f) || f.Has(FlagAggregate) || f.Has(FlagSynAck|FlagAggregate) {
		t.Errorf("%v: Has is wrong", f)
	}
}

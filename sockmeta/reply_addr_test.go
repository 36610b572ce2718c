// SPDX-License-Identifier: Apache-2.0

package sockmeta

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"testing"
)

func testQuestions() map[string]question {
	record, _ := marked(7).AppendBinary(nil)
	long := new(Metadata)
	_ = long.SetBytes(KeyUser, bytes.Repeat([]byte{1}, 240))
	longest, _ := long.AppendBinary(nil)
	return map[string]question{
		"empty":      {},
		"record":     {conn: 1, record: record},
		"longest":    {conn: 1 << 40, local: netip.MustParseAddr("2001:db8::1"), record: longest},
		"IPv4":       {conn: 2, local: netip.MustParseAddr("192.0.2.1"), state: overrun},
		"link-local": {conn: 3, local: netip.MustParseAddr("fe80::1"), ifindex: 9, state: unsupported},
		"none":       {conn: 4, local: netip.MustParseAddr("::1"), state: none},
	}
}

func sameQuestion(a, b question) bool {
	return a.conn == b.conn && a.local == b.local && a.ifindex == b.ifindex && a.state == b.state &&
		bytes.Equal(a.record, b.record)
}

// TestQuestion puts questions into addresses of all kinds and finds them there.
func TestQuestion(t *testing.T) {
	for _, from := range []string{"192.0.2.9:53", "[::ffff:192.0.2.9]:53", "[2001:db8::9]:53", "[fe80::9%lo]:53"} {
		for name, q := range testQuestions() {
			addr := q.addr(netip.MustParseAddrPort(from))
			want := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(from))
			if addr.String() != want.String() || len(addr.IP) != len(want.IP) || addr.Zone != want.Zone {
				t.Errorf("%s: address %v, want %v", name, addr, want)
			}
			twin := *addr
			for kind, a := range map[string]*net.UDPAddr{
				"itself": addr, "a copy": &twin,
				"another port": {IP: addr.IP, Port: 9},
				"shortened":    {IP: addr.IP[len(addr.IP)-4:], Port: 53},
			} {
				if got, ok := questionOf(a); !ok || !sameQuestion(got, q) {
					t.Errorf("%s, %s: %+v, %v, want %+v", name, kind, got, ok, q)
				}
			}
			for kind, a := range map[string]*net.UDPAddr{
				"made anew": net.UDPAddrFromAddrPort(addr.AddrPort()),
				"clipped":   {IP: addr.IP[:len(addr.IP):len(addr.IP)], Port: 53},
				"no IP":     {},
			} {
				if got, ok := questionOf(a); ok {
					t.Errorf("%s, %s: %+v", name, kind, got)
				}
			}
		}
	}
}

// TestQuestionBroken changes each byte behind the IP: what is found then is nothing, or
// what was there where the byte was part of that.
func TestQuestionBroken(t *testing.T) {
	for name, q := range testQuestions() {
		addr := q.addr(netip.MustParseAddrPort("192.0.2.9:53"))
		all := addr.IP[:cap(addr.IP)]
		for i := len(addr.IP); i < len(all); i++ {
			all[i] ^= 0x55
			got, ok := questionOf(addr)
			inSeal := i < len(addr.IP)+sealLen || i >= len(all)-sealLen
			if ok && inSeal {
				t.Errorf("%s: found %+v with byte %d changed", name, got, i)
			}
			all[i] ^= 0x55
		}
		// Who appends to the IP writes there.
		if key := append(addr.IP, 0, 53); len(key) != 6 {
			t.Fatal(key)
		}
		if got, ok := questionOf(addr); ok {
			t.Errorf("%s: found %+v behind what was appended", name, got)
		}
	}
}

// TestQuestionErrors has FromAddr say what became of the record.
func TestQuestionErrors(t *testing.T) {
	for _, want := range []error{nil, ErrNoMetadata, ErrOverrun, ErrNotSupported} {
		q := question{state: stateOf(want)}
		if want == nil {
			q.record, _ = marked(7).AppendBinary(nil)
		}
		md, err := FromAddr(q.addr(netip.MustParseAddrPort("192.0.2.9:53")))
		mark, _ := md.Mark()
		if !errors.Is(err, want) || IsMetadataError(err) != (want != nil) || (mark == 7) != (want == nil) {
			t.Errorf("%v, %v, want %v", md, err, want)
		}
	}
}

func TestQuestionAllocs(t *testing.T) {
	q := testQuestions()["longest"]
	from := netip.MustParseAddrPort("192.0.2.9:53")
	if n := testing.AllocsPerRun(100, func() { _ = q.addr(from) }); n != 1 {
		t.Errorf("%v allocations an address, want 1", n)
	}
	addr := q.addr(from)
	if n := testing.AllocsPerRun(100, func() { _, _ = questionOf(addr) }); n != 0 {
		t.Errorf("%v allocations a question", n)
	}
}

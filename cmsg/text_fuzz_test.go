// SPDX-License-Identifier: Apache-2.0

package cmsg

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"
	"unicode"
)

// FuzzText prints any record: the JSON is an object with each name once and the
// values that the methods return, the log value has the same names, and the text is
// one line.
func FuzzText(f *testing.F) {
	m := fullRecord()
	full, _ := m.MarshalBinary()
	f.Add(full)
	for _, area := range []string{"\x10\x02ab" + anchor, "\x10\x04abcd\x00\x00\x03\x08abcdefgh\x00\x00" + anchor, "\x01\x08\x01\x02\x03\x04\x05\x06\x07\x08\x00\x00" + anchor,
		"\x03\x04\x01\x02\x03\x04\x00\x00\x03\x02ab", "\x10\xff\"\n", "\x10\x00\x00\x00\x10\x02ab\x06\x04\x10\x02ab\x00\x00" + anchor} {
		for format := range byte(4) {
			f.Add(append([]byte{1, 8, byte(len(area)), format, 0xff, 0xff, 0xff, 0xff}, area...))
			f.Add(append([]byte{1, 8, byte(len(area)), format, 0, 0, 0, 0}, area...))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var m Metadata
		if m.Decode(b) != nil {
			return
		}
		text, err := m.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		dec := json.NewDecoder(bytes.NewReader(text))
		dec.UseNumber()
		var names []string
		values := make(map[string]any)
		if tok, err := dec.Token(); err != nil || tok != json.Delim('{') {
			t.Fatalf("%s: %v", text, err)
		}
		for dec.More() {
			name, err := dec.Token()
			if err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			value, err := dec.Token()
			if err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			if _, ok := values[name.(string)]; ok {
				t.Fatalf("%s has %v twice", text, name)
			}
			names = append(names, name.(string))
			values[name.(string)] = value
		}
		if !json.Valid(text) {
			t.Fatalf("no JSON: %s", text)
		}
		if mark, ok := m.Mark(); ok != (values["mark"] != nil) || ok && values["mark"] != json.Number(uitoa(uint64(mark))) {
			t.Errorf("%s, want mark %d, %v", text, mark, ok)
		}
		if m.Err() == nil && m.Format() == FormatTLV {
			for k, v := range m.All() {
				first, _ := m.Bytes(k)
				if !bytes.Equal(v, first) {
					continue
				}
				var want any = "0x" + hex.EncodeToString(v)
				if n, ok := m.Uint32(k); ok && k == KeyServiceID {
					want = json.Number(uitoa(uint64(n)))
				}
				if n, ok := m.Uint64(k); ok && (k == KeyPacketID || k == KeyKtime || k == KeyTunnelID) {
					want = json.Number(uitoa(n))
				}
				if values[k.String()] != want {
					t.Errorf("%s: %v is %v, want %v", text, k, values[k.String()], want)
				}
			}
		}
		var logged []string
		for _, a := range m.LogValue().Group() {
			logged = append(logged, a.Key)
		}
		if strings.Join(logged, " ") != strings.Join(names, " ") {
			t.Errorf("logged %v, want %v", logged, names)
		}
		line := m.String()
		if strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) || line == "" {
			t.Errorf("printed as %q", line)
		}
		for _, name := range names {
			if !strings.Contains(" "+line, " "+name+"=") {
				t.Errorf("no %s in %q", name, line)
			}
		}
	})
}

// uitoa writes a number in decimal, without what text.go does it by.
func uitoa(n uint64) string {
	digits := []byte{byte('0' + n%10)}
	for n /= 10; n > 0; n /= 10 {
		digits = append([]byte{byte('0' + n%10)}, digits...)
	}
	return string(digits)
}

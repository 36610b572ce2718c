// SPDX-License-Identifier: Apache-2.0

package cmsg

import (
	"slices"
	"testing"
)

// withSender returns a record whose sender gave an area.
func withSender(t *testing.T, sender []byte) *Metadata {
	t.Helper()
	m := new(Metadata)
	if err := m.SetBytes(KeySender, sender); err != nil {
		t.Fatal(err)
	}
	if err := m.SetUint32(KeyServiceID, 7); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestSender(t *testing.T) {
	var tlvs []byte
	tlvs, _ = AppendTLV(tlvs, KeyServiceID, []byte("fake"))
	tlvs = append(tlvs, byte(KeyPad), 2, 0, 0)
	tlvs, _ = AppendTLV(tlvs, KeyUser, []byte("value"))
	m := withSender(t, tlvs)

	var s Metadata
	if !m.Sender(&s) {
		t.Fatalf("no sender in %v", m)
	}
	var keys []Key
	for k := range s.All() {
		keys = append(keys, k)
	}
	if v, _ := s.Bytes(KeyUser); string(v) != "value" || !slices.Equal(keys, []Key{KeyServiceID, KeyUser}) {
		t.Errorf("sender gave %v", s)
	}
	// What the sender says is not what the packet's way says.
	if v, ok := m.Uint32(KeyServiceID); !ok || v != 7 {
		t.Errorf("service id %d, %v", v, ok)
	}
	if _, ok := m.Bytes(KeyUser); ok {
		t.Error("the sender's value is among the packet's")
	}
}

func TestNoSender(t *testing.T) {
	for _, b := range [][]byte{nil, {16, 9, 1, 1}, {16, 2, 1}, {255, 2, 0x5B, 1}} {
		s := fullRecord()
		if withSender(t, b).Sender(&s) || s != (Metadata{}) {
			t.Errorf("% x: %v", b, s)
		}
	}
	s := fullRecord()
	if m := fullRecord(); m.Sender(&s) || s != (Metadata{}) {
		t.Errorf("without the key: %v", s)
	}
}

func TestClearFields(t *testing.T) {
	m := fullRecord()
	want, _ := m.Bytes(16)
	want = slices.Clone(want)
	m.ClearFields()
	got, ok := m.Bytes(16)
	if m.rec.Valid != 0 || m.rec.Flags != 0 || m.rec.Mark != 0 || !ok || !slices.Equal(got, want) {
		t.Errorf("left: %v", m)
	}

	sent := withSender(t, []byte{16, 0, 0, 0})
	sent.ClearFields()
	if _, ok := sent.Bytes(KeySender); ok || sent.String() != "service_id=7" {
		t.Errorf("left: %v", sent)
	}
	if err := sent.Delete(KeyServiceID); err != nil {
		t.Fatal(err)
	}
	if sent.ClearFields(); !sent.IsEmpty() {
		t.Errorf("an anchor alone: %v", sent)
	}

	bad := Metadata{}
	bad.rec.AreaLen = 4
	bad.rec.Area[1] = 99
	bad.SetMark(1)
	if bad.ClearFields(); bad != (Metadata{}) {
		t.Errorf("malformed: %v", bad)
	}
	for _, f := range []Format{FormatStruct, FormatRaw} {
		var m Metadata
		if err := m.SetRaw([]byte("raw."), f); err != nil {
			t.Fatal(err)
		}
		m.SetPriority(1)
		if m.ClearFields(); string(m.Raw()) != "raw." || m.Format() != f || m.rec.Valid != 0 {
			t.Errorf("%v: left %v", f, m)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package cmsg

import "testing"

// sink keeps results from being optimised away.
var sink uint64

func typicalOOB(m *Metadata) []byte {
	oob := Append(nil, 1, 35, make([]byte, 16))
	oob = Append(oob, 0, 8, make([]byte, 12))
	return m.AppendCmsg(oob)
}

// typical has three TLVs, and an anchor as all areas.
func typical() Metadata {
	m := fullRecord()
	m.rec.AreaLen = 0
	_ = m.SetUint32(KeyUser, 42)
	_ = m.SetUint64(KeyKtime, 12345)
	_ = m.SetUint64(KeyPacketID, 99)
	return m
}

func TestAllocs(t *testing.T) {
	m := typical()
	oob := typicalOOB(&m)
	rec, _ := m.MarshalBinary()
	buf := make([]byte, 1024)
	var d Metadata

	for name, f := range map[string]func(){
		"Iterator": func() {
			it := Parse(oob)
			for msg, ok := it.Next(); ok; msg, ok = it.Next() {
				sink += uint64(len(msg.Data))
			}
			if it.Err() != nil {
				t.Error(it.Err())
			}
		},
		"All": func() {
			for msg := range All(oob) {
				sink += uint64(len(msg.Data))
			}
		},
		"Find":   func() { v, _ := Find(oob, SOL_BPF, SCM_RECORD); sink += uint64(len(v)) },
		"Append": func() { sink += uint64(len(Append(buf[:0], 1, 2, rec))) },
		"Put":    func() { n, _ := Put(buf, 1, 2, rec); sink += uint64(n) },
		"Writer": func() {
			w := NewWriter(buf)
			w.Put(1, 2, rec)
			w.Put(SOL_BPF, SCM_RECORD, rec)
			sink += uint64(w.Len())
		},
		"FindMetadata": func() {
			if ok, err := FindMetadata(oob, &d); !ok || err != nil {
				t.Error(ok, err)
			}
		},
		"Decode": func() {
			if err := d.Decode(rec); err != nil {
				t.Error(err)
			}
		},
		"AppendBinary": func() { b, _ := m.AppendBinary(buf[:0]); sink += uint64(len(b)) },
		"AppendCmsg":   func() { sink += uint64(len(m.AppendCmsg(buf[:0]))) },
		"Err": func() {
			if m.Err() != nil {
				t.Error(m.Err())
			}
		},
		"getters": func() {
			mark, _ := m.Mark()
			ts, _ := m.Timestamp()
			v, _ := m.Bytes(KeyUser)
			u, _ := m.Uint64(KeyKtime)
			sink += uint64(mark) + uint64(ts.Nanosecond()) + uint64(len(v)) + u
		},
		"Metadata.All": func() {
			for k, v := range m.All() {
				sink += uint64(k) + uint64(len(v))
			}
		},
		"setters": func() {
			d = m
			_ = d.SetUint8(20, 1)
			_ = d.SetUint16(21, 1)
			_ = d.SetUint32(22, 1)
			_ = d.SetUint64(KeyPacketID, 1)
			_ = d.SetBytes(23, rec[:8])
			_ = d.Delete(20)
			_ = d.SetRaw(m.Raw(), FormatTLV)
		},
		"TLV functions": func() {
			b, _ := AppendTLV(buf[:0], 16, rec[:5])
			b, _ = PrependTLV(AppendAnchor(b, FormatTLV), 17, rec[:9])
			it := TLVs(b)
			for k, v, ok := it.Next(); ok; k, v, ok = it.Next() {
				sink += uint64(k) + uint64(len(v))
			}
			if it.Err() != nil || CheckTLVs(b) != nil {
				t.Error(it.Err())
			}
		},
		"Record": func() { d.Record().Set(m.Record()) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

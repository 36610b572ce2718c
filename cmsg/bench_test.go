// SPDX-License-Identifier: Apache-2.0

package cmsg

import "testing"

func BenchmarkIterator(b *testing.B) {
	m := typical()
	oob := typicalOOB(&m)
	for b.Loop() {
		it := Parse(oob)
		for msg, ok := it.Next(); ok; msg, ok = it.Next() {
			sink += uint64(len(msg.Data))
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	m := typical()
	rec, _ := m.MarshalBinary()
	for b.Loop() {
		if err := m.Decode(rec); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFindMetadata(b *testing.B) {
	m := typical()
	oob := typicalOOB(&m)
	for b.Loop() {
		if ok, err := FindMetadata(oob, &m); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}

func BenchmarkAppendCmsg(b *testing.B) {
	m := typical()
	buf := make([]byte, 0, MetadataSpace)
	for b.Loop() {
		sink += uint64(len(m.AppendCmsg(buf)))
	}
}

func BenchmarkBytes(b *testing.B) {
	m := typical()
	for b.Loop() {
		v, ok := m.Bytes(KeyUser)
		if !ok {
			b.Fatal("no value")
		}
		sink += uint64(len(v))
	}
}

func BenchmarkUint64(b *testing.B) {
	m := typical()
	for b.Loop() {
		v, ok := m.Uint64(KeyKtime)
		if !ok {
			b.Fatal("no value")
		}
		sink += v
	}
}

func BenchmarkErr(b *testing.B) {
	m := typical()
	for b.Loop() {
		if m.Err() != nil {
			b.Fatal(m.Err())
		}
	}
}

func BenchmarkSetUint64(b *testing.B) {
	m := typical()
	for b.Loop() {
		if err := m.SetUint64(KeyPacketID, sink); err != nil {
			b.Fatal(err)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package cmsg_test

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/sockmeta/sockmeta-go/cmsg"
)

// What sendmsg(2) takes to send with a TTL of 64 and a TOS of 16.
func ExampleAppend() {
	oob := make([]byte, 0, 2*cmsg.Space(1))
	oob = cmsg.Append(oob, 0, 2, []byte{64}) // IPPROTO_IP, IP_TTL
	oob = cmsg.Append(oob, 0, 1, []byte{16}) // IPPROTO_IP, IP_TOS
	fmt.Println(len(oob) == 2*cmsg.Space(1))
	// Output: true
}

func ExampleParse() {
	oob := cmsg.Append(nil, 0, 2, []byte{64})
	oob = cmsg.Append(oob, 0, 1, []byte{16})

	it := cmsg.Parse(oob)
	for msg, ok := it.Next(); ok; msg, ok = it.Next() {
		fmt.Println(msg.Level, msg.Type, msg.Data)
	}
	fmt.Println(it.Err())
	// Output:
	// 0 2 [64]
	// 0 1 [16]
	// <nil>
}

func ExampleIterator_Err() {
	oob := cmsg.Append(nil, 0, 2, []byte{64})
	it := cmsg.Parse(oob[:cmsg.HeaderLen])
	_, ok := it.Next()
	fmt.Println(ok, errors.Is(it.Err(), cmsg.ErrMalformed))
	// Output: false true
}

func ExampleAll() {
	oob := cmsg.Append(nil, 0, 2, []byte{64})
	for msg := range cmsg.All(oob) {
		fmt.Println(msg.Level, msg.Type, msg.Data)
	}
	// Output: 0 2 [64]
}

func ExampleFind() {
	oob := cmsg.Append(nil, 0, 2, []byte{64})
	ttl, ok := cmsg.Find(oob, 0, 2)
	fmt.Println(ttl, ok)
	// Output: [64] true
}

func ExamplePut() {
	var buf [64]byte
	n, err := cmsg.Put(buf[:], 0, 2, []byte{64})
	fmt.Println(n == cmsg.Space(1), err)

	_, err = cmsg.Put(buf[:], 0, 2, make([]byte, 64))
	fmt.Println(err)
	// Output:
	// true <nil>
	// sockmeta: too large
}

func ExampleWriter() {
	oob := make([]byte, cmsg.Space(8)+cmsg.Len(2))
	w := cmsg.NewWriter(oob)
	w.Put(1, 100, []byte("12345678"))
	w.Put(1, 101, []byte("abcd"))

	for msg := range cmsg.All(oob[:w.Len()]) {
		fmt.Printf("%d %s\n", msg.Type, msg.Data)
	}
	fmt.Println("truncated:", w.Truncated())
	// Output:
	// 100 12345678
	// 101 ab
	// truncated: true
}

func ExampleMetadata() {
	var m cmsg.Metadata
	m.SetMark(1)
	if err := m.SetUint32(cmsg.KeyServiceID, 7); err != nil {
		fmt.Println(err)
	}
	if err := m.SetBytes(cmsg.KeyUser, []byte("\x01\x02")); err != nil {
		fmt.Println(err)
	}

	service, ok := m.Uint32(cmsg.KeyServiceID)
	fmt.Println(service, ok)
	_, ok = m.Uint64(cmsg.KeyServiceID)
	fmt.Println("as 64 bits:", ok)
	fmt.Println(m)
	// Output:
	// 7 true
	// as 64 bits: false
	// mark=0x1 16=0x0102 service_id=7
}

func ExampleMetadata_All() {
	var m cmsg.Metadata
	_ = m.SetBytes(17, []byte("b"))
	_ = m.SetBytes(16, []byte("a"))
	for k, v := range m.All() {
		fmt.Printf("%v %s\n", k, v)
	}
	// Output:
	// 16 a
	// 17 b
}

func ExampleMetadata_Delete() {
	var m cmsg.Metadata
	_ = m.SetBytes(16, []byte("a"))
	_ = m.Delete(16)
	_, ok := m.Bytes(16)
	fmt.Printf("%v % x\n", ok, m.Raw())
	// Output: false ff 02 5b 00
}

func ExampleMetadata_SetRaw() {
	var m cmsg.Metadata
	err := m.SetRaw(cmsg.AppendAnchor([]byte("mine"), cmsg.FormatStruct), cmsg.FormatStruct)
	fmt.Println(err, m.Format(), m.Flags())
	// Output: <nil> struct none
}

func ExampleMetadata_Err() {
	var m cmsg.Metadata
	_ = m.SetBytes(16, make([]byte, 100))
	rec, _ := m.MarshalBinary()

	err := m.Decode(rec[:len(rec)-40])
	fmt.Println(err, m.Flags())
	_, ok := m.Bytes(16)
	fmt.Println(ok, errors.Is(m.Err(), cmsg.ErrTruncated))
	// Output:
	// <nil> truncated
	// false true
}

func ExampleMetadata_MarshalJSON() {
	var m cmsg.Metadata
	m.SetPriority(6)
	_ = m.SetUint64(cmsg.KeyPacketID, 5)
	_ = m.SetBytes(cmsg.KeyUser, []byte("\xAB"))
	b, _ := json.Marshal(m)
	fmt.Println(string(b))
	// Output: {"prio":6,"16":"0xab","packet_id":5}
}

func ExampleFindMetadata() {
	var sent cmsg.Metadata
	sent.SetMark(42)
	oob := cmsg.Append(nil, 0, 2, []byte{64})
	oob = sent.AppendCmsg(oob)

	var m cmsg.Metadata
	ok, err := cmsg.FindMetadata(oob, &m)
	mark, known := m.Mark()
	fmt.Println(ok, err, mark, known)
	// Output: true <nil> 42 true
}

func ExamplePrependTLV() {
	area := make([]byte, 0, cmsg.AreaMax)
	area = cmsg.AppendAnchor(area, cmsg.FormatTLV)
	area, err := cmsg.PrependTLV(area, cmsg.KeyUser, []byte("abc"))
	fmt.Printf("% x %v\n", area, err)
	// Output: 10 03 61 62 63 00 00 00 ff 02 5b 00 <nil>
}

func ExampleTLVs() {
	area, _ := cmsg.AppendTLV(nil, 16, []byte("first"))
	area, _ = cmsg.AppendTLV(area, 17, []byte("second"))
	area = cmsg.AppendAnchor(area, cmsg.FormatTLV)

	it := cmsg.TLVs(area)
	for k, v, ok := it.Next(); ok; k, v, ok = it.Next() {
		fmt.Printf("%v %s\n", k, v)
	}
	fmt.Println(it.Err())
	// Output:
	// 16 first
	// 17 second
	// <nil>
}

func ExampleAnchorFormat() {
	f, ok := cmsg.AnchorFormat([]byte{1, 2, 3, 4, 255, 2, 0x5B, 2})
	fmt.Println(f, ok)
	// Output: raw true
}

func ExampleFlags_String() {
	fmt.Println(cmsg.FlagAggregate | cmsg.FlagTruncated)
	// Output: aggregate|truncated
}

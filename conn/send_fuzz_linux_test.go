// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/cmsg"
)

// FuzzSend sends with any control messages on a socket without metadata: it is as
// with package net's and the same messages without the records, and whoever gave a
// record hears that it was not sent.
func FuzzSend(f *testing.F) {
	var md cmsg.Metadata
	if err := md.SetUint64(cmsg.KeyUser, 7); err != nil {
		f.Fatal(err)
	}
	record := md.AppendCmsg(nil)
	ttl := cmsg.Append(nil, unix.IPPROTO_IP, unix.IP_TTL, []byte{9, 0, 0, 0})
	launch := cmsg.Append(nil, unix.SOL_SOCKET, unix.SCM_TXTIME, binary.NativeEndian.AppendUint64(nil, 1))
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for _, oob := range [][]byte{
		nil, record, record[:len(record)-4], record[:40], ttl, join(ttl, record), join(record, ttl), join(record, record),
		launch, join(launch, record), join(record, launch), join(record, ttl[:20]),
		cmsg.Append(nil, cmsg.SOL_BPF, cmsg.SCM_RECORD, nil), cmsg.Append(nil, cmsg.SOL_BPF, 2, []byte("other")),
		join(cmsg.Append(nil, cmsg.SOL_BPF, cmsg.SCM_RECORD, []byte("bad")), record),
		cmsg.Append(nil, unix.SOL_SOCKET, unix.SO_MARK, []byte{1, 0, 0, 0}),
	} {
		f.Add(oob)
	}
	sink, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = sink.Close() })
	to := sink.LocalAddr().(*net.UDPAddr).AddrPort()
	open := func() *net.UDPConn {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			f.Fatal(err)
		}
		f.Cleanup(func() { _ = c.Close() })
		return c
	}
	plain, ours := open(), unsupported(open())

	f.Fuzz(func(t *testing.T, oob []byte) {
		var rest []byte
		records := 0
		it := cmsg.Parse(oob)
		for m, ok := it.Next(); ok; m, ok = it.Next() {
			if m.Level == cmsg.SOL_BPF && m.Type == cmsg.SCM_RECORD {
				records++
			} else {
				rest = cmsg.Append(rest, int(m.Level), int(m.Type), m.Data)
			}
		}
		if records == 0 || it.Err() != nil {
			rest, records = oob, 0
		}
		before := bytes.Clone(oob)
		_, _, want := plain.WriteMsgUDPAddrPort([]byte("plain"), rest, to)
		n, oobn, err := ours.WriteMsgUDPAddrPort([]byte("ours"), oob, to)
		if !bytes.Equal(oob, before) {
			t.Fatal("changed the caller's control messages")
		}
		got := err
		if IsMetadataError(err) {
			got = nil
		}
		if (got == nil) != (want == nil) {
			t.Fatalf("% x: %v, want %v", oob, got, want)
		}
		if want == nil && (IsMetadataError(err) != (records > 0) || n != 4 || oobn != len(oob)) {
			t.Fatalf("% x: %d, %d, %v with %d records", oob, n, oobn, err, records)
		}

		if _, err := plain.WriteToUDPAddrPort([]byte("end"), to); err != nil {
			t.Fatal(err)
		}
		arrived := make(map[string]int)
		b := make([]byte, 16)
		for arrived["end"] == 0 {
			if err := sink.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			n, err := sink.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			arrived[string(b[:n])]++
		}
		if arrived["plain"] != arrived["ours"] || arrived["ours"] > 1 {
			t.Errorf("% x: arrived %v", oob, arrived)
		}
	})
}

// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"io"
	"net"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/abi"
)

// FuzzRecord gives a TCP connection any bytes for a record: they are refused, and
// its packets have the record that it had, or they have the new one.
func FuzzRecord(f *testing.F) {
	w := newFuzzWire(f)
	var conn, peer *net.TCPConn
	// The peer is in no cgroup of ours: what it sends is not looked at.
	var l *net.TCPListener
	must(f, w.Do(func() (err error) {
		l, err = net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		return err
	}))
	defer l.Close()
	w.within(func() error {
		return w.Do(func() (err error) {
			conn, err = net.DialTCP("tcp4", nil, l.Addr().(*net.TCPAddr))
			return err
		})
	})
	f.Cleanup(func() { _ = conn.Close() })
	peer, err := l.AcceptTCP()
	must(f, err)
	f.Cleanup(func() { _ = peer.Close() })
	raw, err := conn.SyscallConn()
	must(f, err)
	must(f, peer.SetReadDeadline(time.Now().Add(24*time.Hour)))
	onConn := func(tb testing.TB, do func(fd int) error) {
		tb.Helper()
		var err error
		must(tb, raw.Control(func(fd uintptr) { err = do(int(fd)) }))
		must(tb, err)
	}
	onConn(f, func(fd int) error { return bpf.EnableSocket(fd, 0) })

	var md cmsg.Metadata
	must(f, md.SetUint64(cmsg.KeyUser, 7))
	md.SetMark(0x1200)
	md.SetPriority(7)
	record, _ := md.MarshalBinary()
	for _, b := range [][]byte{
		nil, record, record[:recordHdr], record[:len(record)-1], append(slices.Clip(record), 1, 2, 3),
		append(slices.Clip(record), make([]byte, recordMax)...),
	} {
		f.Add(b, record, uint8(cmsg.KeyUser))
		f.Add(record, b, uint8(cmsg.KeyUser+1))
	}
	f.Fuzz(func(t *testing.T, first, second []byte, key uint8) {
		var rec *abi.Record
		for _, b := range [][]byte{nil, first, second} {
			b = append(make([]byte, 0, 4097), b[:min(len(b), 4096)]...)
			want := setModel(false, true, int32(abi.OptTxRecord), b)
			onConn(t, func(fd int) error {
				if got := rawSetsockopt(uintptr(fd), abi.SOL_BPF, abi.OptTxRecord, b); got != want {
					t.Fatalf("% x: %d, want %d", b, got, want)
				}
				return nil
			})
			if want == 0 {
				rec = nil
			}
			if want == 0 && len(b) > 0 {
				rec = new(abi.Record)
				copy((*[recordMax]byte)(unsafe.Pointer(rec))[:], b[:recordHdr+int(b[2])])
			}
		}
		w.look(t, key)
		_, err := conn.Write([]byte{key})
		must(t, err)
		w.expect(t, rec, false)
		got := make([]byte, 1)
		if _, err := io.ReadFull(peer, got); err != nil || got[0] != key {
			t.Fatalf("% x arrived, %v", got, err)
		}
	})
}

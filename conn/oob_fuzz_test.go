// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"

	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/abi"
)

// FuzzTranslate has the kernel return any control messages: what comes out fits
// the caller's buffer, and holds no handle.
func FuzzTranslate(f *testing.F) {
	handle := func(h uint64) []byte {
		var b [timestampingLen]byte
		binary.NativeEndian.PutUint64(b[:], h/1e9)
		binary.NativeEndian.PutUint64(b[8:], h%1e9)
		return b[:]
	}
	ours := cmsg.Append(nil, solSocket, scmTimestampingNew, handle(abi.HandleBit|1<<24|5))
	f.Add(ours, 0)
	f.Add(ours, 64)
	f.Add(cmsg.Append(ours, 0, 8, make([]byte, 12)), 100)
	f.Add(cmsg.Append(ours, solSocket, scmTimestampnsOld, make([]byte, 16)), 100)
	f.Add(cmsg.Append(cmsg.Append(nil, solSocket, scmTimestampNew, make([]byte, 16)), solSocket, scmTimestampingOld, handle(1e18)), 300)
	f.Add(cmsg.Append(nil, solSocket, scmTimestampOld, []byte{1, 2, 3}), 300)
	f.Add(ours[:20], 64)
	f.Add([]byte{255, 255, 255, 255, 255, 255, 255, 255}, 64)

	plain, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		f.Fatal(err)
	}
	c := NewUDPConn(plain)
	f.Cleanup(func() { _ = c.Close() })
	c.wantCmsg.Store(true)

	f.Fuzz(func(t *testing.T, got []byte, size int) {
		if size < 0 || size > 1<<12 {
			return
		}
		buf := bytes.Repeat([]byte{0xEE}, size+16)
		n, _ := c.translate(buf[:size:size], &came{arrival: c.carrier.locate(got, 0), got: got, md: new(cmsg.Metadata), socket: new(tsFlags)})
		if n > size || !bytes.Equal(buf[size:], bytes.Repeat([]byte{0xEE}, 16)) {
			t.Fatalf("%d bytes into %d", n, size)
		}
		if h := findHandle(buf[:n]); h != 0 {
			t.Errorf("handle %#x came through", h)
		}
	})
}

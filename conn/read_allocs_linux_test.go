// SPDX-License-Identifier: Apache-2.0

//go:build !race

package conn

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/cmsg"
)

// TestReadAllocs has callers keep a Metadata of their own on the stack, and a buffer for
// control messages that is larger than ours on the stack.
func TestReadAllocs(t *testing.T) {
	plain, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	c := NewUDPConn(plain)
	t.Cleanup(func() { _ = c.Close() })
	if err := c.Support().Err(); err != nil {
		t.Skip(err)
	}
	from, err := net.DialUDP("udp4", nil, plain.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = from.Close() })
	b, oob := make([]byte, 16), make([]byte, 2*largeOOB)
	for _, mode := range []Segments{SegmentsOff, SegmentsSplit} {
		if err := c.SetGRO(mode); err != nil {
			t.Fatal(err)
		}
		for name, read := range map[string]func() error{
			"ReadMetadata": func() error {
				var md cmsg.Metadata
				_, _, err := c.ReadMetadata(b, &md)
				return err
			},
			"Metadata": func() error {
				if _, err := c.Read(b); err != nil {
					return err
				}
				_, err := c.Metadata()
				return err
			},
			"ReadMsgUDPAddrPort": func() error {
				_, _, flags, _, err := c.ReadMsgUDPAddrPort(b, oob)
				if err == nil && flags&unix.MSG_CTRUNC != 0 {
					t.Error("cut")
				}
				return err
			},
		} {
			n := testing.AllocsPerRun(100, func() {
				if _, err := from.Write(b[:1]); err != nil {
					t.Fatal(err)
				}
				if err := read(); err != nil {
					t.Fatal(err)
				}
			})
			if n != 0 {
				t.Errorf("%v, %s: %v allocations", mode, name, n)
			}
		}
	}
}

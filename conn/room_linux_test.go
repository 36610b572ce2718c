// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/cmsg"
)

// soRcvPriority is SO_RCVPRIORITY, of Linux 6.14.
const soRcvPriority = 82

// An askedFor is a socket option that has the kernel put a control message.
type askedFor struct {
	name              string
	level, opt, value int
	// missing says that kernels may not have it.
	missing bool
}

// socketOptions are those of all datagram sockets.
var socketOptions = []askedFor{
	{name: "SO_TIMESTAMPNS", level: unix.SOL_SOCKET, opt: unix.SO_TIMESTAMPNS, value: 1},
	{name: "SO_TIMESTAMPING", level: unix.SOL_SOCKET, opt: unix.SO_TIMESTAMPING, value: tsSoftware | tsRxSoftware},
	{name: "SO_RXQ_OVFL", level: unix.SOL_SOCKET, opt: unix.SO_RXQ_OVFL, value: 1},
	{name: "SO_RCVMARK", level: unix.SOL_SOCKET, opt: unix.SO_RCVMARK, value: 1, missing: true},
	{name: "SO_RCVPRIORITY", level: unix.SOL_SOCKET, opt: soRcvPriority, value: 1, missing: true},
	{name: "UDP_GRO", level: unix.SOL_UDP, opt: unix.UDP_GRO, value: 1},
}

var ip4Options = []askedFor{
	{name: "IP_PKTINFO", level: unix.IPPROTO_IP, opt: unix.IP_PKTINFO, value: 1},
	{name: "IP_RECVTTL", level: unix.IPPROTO_IP, opt: unix.IP_RECVTTL, value: 1},
	{name: "IP_RECVTOS", level: unix.IPPROTO_IP, opt: unix.IP_RECVTOS, value: 1},
	{name: "IP_RECVOPTS", level: unix.IPPROTO_IP, opt: unix.IP_RECVOPTS, value: 1},
	{name: "IP_RETOPTS", level: unix.IPPROTO_IP, opt: unix.IP_RETOPTS, value: 1},
	{name: "IP_RECVORIGDSTADDR", level: unix.IPPROTO_IP, opt: unix.IP_RECVORIGDSTADDR, value: 1},
	{name: "IP_RECVFRAGSIZE", level: unix.IPPROTO_IP, opt: unix.IP_RECVFRAGSIZE, value: 1},
	{name: "IP_CHECKSUM", level: unix.IPPROTO_IP, opt: unix.IP_CHECKSUM, value: 1},
}

var ip6Options = []askedFor{
	{name: "IPV6_RECVPKTINFO", level: unix.IPPROTO_IPV6, opt: unix.IPV6_RECVPKTINFO, value: 1},
	{name: "IPV6_RECVHOPLIMIT", level: unix.IPPROTO_IPV6, opt: unix.IPV6_RECVHOPLIMIT, value: 1},
	{name: "IPV6_RECVTCLASS", level: unix.IPPROTO_IPV6, opt: unix.IPV6_RECVTCLASS, value: 1},
	{name: "IPV6_RECVORIGDSTADDR", level: unix.IPPROTO_IPV6, opt: unix.IPV6_RECVORIGDSTADDR, value: 1},
	{name: "IPV6_RECVHOPOPTS", level: unix.IPPROTO_IPV6, opt: unix.IPV6_RECVHOPOPTS, value: 1},
	{name: "IPV6_RECVFRAGSIZE", level: unix.IPPROTO_IPV6, opt: unix.IPV6_RECVFRAGSIZE, value: 1},
}

// askForAll sets the options, and has the socket lose datagrams, which SO_RXQ_OVFL tells
// of only then.
func askForAll(t *testing.T, c *net.UDPConn, from *net.UDPConn, options []askedFor) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		for _, o := range options {
			err := unix.SetsockoptInt(int(fd), o.level, o.opt, o.value)
			if err != nil && !(o.missing && err == unix.ENOPROTOOPT) {
				t.Errorf("%s: %v", o.name, err)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadBuffer(1); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if _, err := from.Write(make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	for err == nil {
		if err := c.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		_, err = c.Read(make([]byte, 1))
	}
	if err := c.SetReadBuffer(1 << 20); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
}

// TestRoomForAll asks the kernel for all control messages that there are. The record
// comes with every buffer that callers give, and they get what package net gives them.
func TestRoomForAll(t *testing.T) {
	for _, tt := range []struct {
		network string
		ip      net.IP
		options []askedFor
	}{
		{"udp4", net.IPv4(127, 0, 0, 1), append(ip4Options, socketOptions...)},
		{"udp6", net.IPv6loopback, append(ip6Options, socketOptions...)},
	} {
		t.Run(tt.network, func(t *testing.T) {
			open := func() (*net.UDPConn, *net.UDPConn) {
				c, err := net.ListenUDP(tt.network, &net.UDPAddr{IP: tt.ip})
				if err != nil {
					t.Skip(err)
				}
				t.Cleanup(func() { _ = c.Close() })
				from, err := net.DialUDP(tt.network, nil, c.LocalAddr().(*net.UDPAddr))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = from.Close() })
				return c, from
			}
			plain, toPlain := open()
			wrapped, toOurs := open()
			ours := NewUDPConn(wrapped)
			if err := ours.Support().Err(); err != nil {
				t.Skip(err)
			}
			askForAll(t, plain, toPlain, tt.options)
			askForAll(t, wrapped, toOurs, tt.options)
			send := func(c *net.UDPConn) {
				t.Helper()
				oob := cmsg.Append(nil, unix.SOL_UDP, unix.UDP_SEGMENT, binary.NativeEndian.AppendUint16(nil, 500))
				if _, _, err := c.WriteMsgUDPAddrPort(make([]byte, 1000), oob, netip.AddrPort{}); err != nil {
					t.Fatal(err)
				}
			}
			b := make([]byte, 2000)

			var md cmsg.Metadata
			send(toOurs)
			if n, _, err := ours.ReadMetadata(b, &md); n != 1000 || err != nil {
				t.Errorf("ReadMetadata: %d bytes, %v", n, err)
			}
			full := 1024
			for size := 0; size <= full; size++ {
				send(toOurs)
				send(toPlain)
				oob, want := make([]byte, size), make([]byte, size)
				n, nn, flags, _, err := ours.ReadMsgUDPAddrPort(b, oob)
				wantN, wantNN, wantFlags, _, wantErr := plain.ReadMsgUDPAddrPort(b, want)
				if n != wantN || flags != wantFlags || err != nil || wantErr != nil || shape(oob[:nn]) != shape(want[:wantNN]) {
					t.Fatalf("%d bytes of room: %d, %#x, %v, %s; want %d, %#x, %v, %s", size,
						n, flags, err, shape(oob[:nn]), wantN, wantFlags, wantErr, shape(want[:wantNN]))
				}
				if _, err := ours.Metadata(); err != nil {
					t.Fatalf("%d bytes of room: %v", size, err)
				}
				if size == 1024 || flags&unix.MSG_CTRUNC == 0 {
					if flags&unix.MSG_CTRUNC != 0 {
						t.Errorf("%d bytes are not room enough", size)
					}
					t.Log(shape(oob[:nn]))
					break
				}
			}
			ms := []Message{{Buf: b}}
			send(toOurs)
			if n, err := ours.ReadBatchMetadata(ms, 0); n != 1 || err != nil || ms[0].Err != nil || ms[0].N != 1000 || ms[0].SegmentSize != 500 {
				t.Errorf("ReadBatchMetadata: %d, %v, %v, %d bytes of %d", n, err, ms[0].Err, ms[0].N, ms[0].SegmentSize)
			}
		})
	}
}

// shape returns levels, types and sizes of control messages.
func shape(oob []byte) (s string) {
	it := cmsg.Parse(oob)
	for m, ok := it.Next(); ok; m, ok = it.Next() {
		s += fmt.Sprintf("{%d %d %d}", m.Level, m.Type, len(m.Data))
	}
	return s
}

// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/binary"
	"errors"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// TestTruthErrorQueue has an ICMPv6 error carry the handle of a packet that waits in the
// same socket. Its sender is in the socket's namespace, and knows the handle.
func TestTruthErrorQueue(t *testing.T) {
	testutil.RequireRoot(t)
	if native() {
		t.Skip("there are no handles")
	}
	testutil.EnterCgroup(t)
	p := testutil.Pair(t)
	c := listenUDP(t, p.Client, "udp6", udpAddr(p.ClientAddr6, 0))
	withFD(t, c, func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1) })
	port := c.LocalAddr().(*net.UDPAddr).Port
	sender := dialUDP(t, p.Server, nil, udpAddr(p.ClientAddr6, port))
	must1(t)(sender.Write([]byte("a packet")))
	waitReadable(t, c.NetConn().(*net.UDPConn))
	var handle uint64
	withFD(t, c, func(fd int) error {
		oob := make([]byte, 512)
		_, n, _, _, err := unix.Recvmsg(fd, make([]byte, 64), oob, unix.MSG_PEEK)
		if err == nil {
			handle, err = handleIn(oob[:n])
		}
		return err
	})
	must(t, p.Client.Do(func() error {
		return sendUnreachable(p.ClientIf, p.ClientAddr6.As16(), p.ServerAddr6.As16(), port, handle)
	}))

	ms := []sockmeta.Message{{Buf: make([]byte, 64), OOB: make([]byte, 512)}}
	var n int
	for deadline := time.Now().Add(udpPatience); n == 0; time.Sleep(time.Millisecond) {
		var err error
		n, err = c.ReadBatchMetadata(ms, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if err != nil && (!errors.Is(err, unix.EAGAIN) || time.Now().After(deadline)) {
			t.Fatal(err)
		}
	}
	if ms[0].Flags&unix.MSG_ERRQUEUE == 0 || !errors.Is(ms[0].Err, sockmeta.ErrNoMetadata) {
		t.Errorf("message with flags %#x: %v, %v", ms[0].Flags, &ms[0].Metadata, ms[0].Err)
	}
	if md, err := c.Metadata(); !errors.Is(err, sockmeta.ErrNoMetadata) {
		t.Errorf("no datagram was read: %v, %v", &md, err)
	}
	var md sockmeta.Metadata
	if _, _, err := c.ReadMetadata(make([]byte, 64), &md); err != nil {
		t.Error(err)
	}
}

// sendUnreachable tells all nodes of a link that a datagram from local's port did not
// arrive, at a time of the sender's choice.
func sendUnreachable(link string, local, remote [16]byte, port int, at uint64) error {
	dev, err := net.InterfaceByName(link)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := setTxTime(fd, txTime{clock: unix.CLOCK_REALTIME}); err != nil {
		return err
	}
	for option, value := range map[int]int{unix.IPV6_MULTICAST_IF: dev.Index, unix.IPV6_MULTICAST_LOOP: 1} {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, option, value); err != nil {
			return err
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrInet6{Addr: local}); err != nil {
		return err
	}
	const udpLen = 24
	msg := make([]byte, 8+40+udpLen)
	msg[0], msg[1] = 1, 4 // destination unreachable: port (RFC 4443, section 3.1)
	ip := msg[8:]
	ip[0] = 6 << 4
	binary.BigEndian.PutUint16(ip[4:], udpLen)
	ip[6], ip[7] = unix.IPPROTO_UDP, 64
	copy(ip[8:], local[:])
	copy(ip[24:], remote[:])
	binary.BigEndian.PutUint16(ip[40:], uint16(port))
	binary.BigEndian.PutUint16(ip[42:], 9)
	binary.BigEndian.PutUint16(ip[44:], udpLen)
	oob := cmsg.Append(nil, unix.SOL_SOCKET, unix.SCM_TXTIME, binary.NativeEndian.AppendUint64(nil, at))
	allNodes := [16]byte{0: 0xff, 1: 2, 15: 1}
	return unix.Sendmsg(fd, msg, oob, &unix.SockaddrInet6{Addr: allNodes, ZoneId: uint32(dev.Index)}, 0)
}

// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/abi"
	"github.com/sockmeta/sockmeta-go/internal/forge"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

func init() { children["forgerSockets"] = func() error { return forgerSockets(forgerOrdersFromEnv()) } }

const forgerEnv = "SOCKMETA_TEST_FORGER"

// forgerOrders is what a forger without privileges, or with those of a container alone,
// is told: all that he could find out, and more.
type forgerOrders struct {
	// Victims are the addresses of sockets that receive, and Interface is where he
	// finds them.
	Victims   []netip.AddrPort
	Interface string
	// Times are what he puts into skb->tstamp.
	Times []uint64
	// Memory are addresses that are not his, for the programs to read transmit slots at.
	Memory []uint64
	// Spoof is the honest sender's address: frames with it are sent by this interface.
	Spoof netip.AddrPort
	Raw   string
}

func (o forgerOrders) env() string {
	b, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	return forgerEnv + "=" + string(b)
}

func forgerOrdersFromEnv() (o forgerOrders) {
	if err := json.Unmarshal([]byte(os.Getenv(forgerEnv)), &o); err != nil {
		panic(err)
	}
	return o
}

// forgedRecord is what a forger says in a record of his own.
func forgedRecord() []byte {
	var md cmsg.Metadata
	md.SetMark(forge.Mark)
	if err := md.SetRaw(cmsg.AppendAnchor(forge.Rows(64), cmsg.FormatTLV), cmsg.FormatTLV); err != nil {
		panic(err)
	}
	b, err := md.MarshalBinary()
	if err != nil {
		panic(err)
	}
	return b
}

// forgerSockets sends to the victims, and to sockets of its own: with all times by all
// clocks that it may use, and with control messages that say something themselves.
func forgerSockets(o forgerOrders) error {
	began := time.Now().Add(-time.Second)
	own, err := forgerOwn(o)
	if err != nil {
		return err
	}
	targets := o.Victims
	for _, c := range own {
		defer c.Close()
		targets = append(targets, c.LocalAddr().(*net.UDPAddr).AddrPort())
	}
	for _, to := range targets {
		// One that the kernel or a firewall keeps from sending has not got anywhere.
		for _, clock := range []uint32{unix.CLOCK_MONOTONIC, unix.CLOCK_TAI, unix.CLOCK_REALTIME} {
			for _, opted := range []bool{false, true} {
				s, err := newForgerSocket(o, to, clock, opted)
				if err != nil {
					continue
				}
				s.sendAll(o)
				_ = unix.Close(s.fd)
			}
		}
		if o.Raw != "" {
			if err := sendRaw(o, to); err != nil {
				return fmt.Errorf("frames to %v: %w", to, err)
			}
		}
	}
	for _, c := range own {
		if err := readOwn(c, began); err != nil {
			return fmt.Errorf("own socket %v: %w", c.LocalAddr(), err)
		}
	}
	return nil
}

// forgerOwn opens sockets of the forger's own, one of them in a multicast group.
func forgerOwn(o forgerOrders) (own []*sockmeta.UDPConn, err error) {
	for _, addr := range []string{"127.0.0.1", "::1"} {
		c, err := sockmeta.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(addr)})
		if err != nil {
			return nil, err
		}
		own = append(own, c)
	}
	ifi, err := net.InterfaceByName(o.Interface)
	if err != nil {
		return nil, err
	}
	c, err := sockmeta.ListenMulticastUDP("udp4", ifi, &net.UDPAddr{IP: net.IPv4(239, 7, 7, 7), Port: 7777})
	for _, c := range append(own, c) {
		if c != nil {
			_ = c.SetReadBuffer(4 << 20)
		}
	}
	return append(own, c), err
}

// readOwn looks at what the forger's own socket received: his own packets have nothing
// of others.
func readOwn(c *sockmeta.UDPConn, began time.Time) error {
	truth := forge.Truth{Since: began}
	for n := 0; ; n++ {
		if err := c.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			return err
		}
		b := make([]byte, 64)
		var md sockmeta.Metadata
		got, _, err := c.ReadMetadata(b, &md)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && n > 0:
			return nil
		case sockmeta.IsMetadataError(err):
			continue
		case err != nil:
			return err
		}
		if l := truth.Check(&md); l != nil {
			return fmt.Errorf("%q has another's record: %w: %v", b[:got], l, md)
		}
	}
}

// A forgerSocket sends to one address.
type forgerSocket struct {
	fd int
	to unix.Sockaddr
}

// newForgerSocket makes a socket whose control messages may have times by a clock. One
// that has opted in is one that the programs look at, wherever it can.
func newForgerSocket(o forgerOrders, to netip.AddrPort, clock uint32, opted bool) (s *forgerSocket, err error) {
	domain := unix.AF_INET6
	if to.Addr().Unmap().Is4() {
		domain, to = unix.AF_INET, netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	}
	s = &forgerSocket{to: socketAddr(domain, to)}
	if s.fd, err = unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = unix.Close(s.fd)
		}
	}()
	if opted {
		// Outside of the cgroup, or in a kernel without, it fails.
		_ = bpf.EnableSocket(s.fd, 0)
		for _, addr := range o.Memory {
			slots := abi.TxSlots{ABI: abi.ABI, Count: 4096, Addr: addr}
			_ = rawSetsockopt(uintptr(s.fd), abi.SOL_BPF, abi.OptTxSlots, unsafe.Slice((*byte)(unsafe.Pointer(&slots)), unsafe.Sizeof(slots)))
		}
		for _, opt := range []int{0, abi.OptEnable, abi.OptInfo, 3, 4, 5, abi.OptTxRecord, abi.OptTxSlots, abi.OptTxInfo, 9, 10, abi.OptSlot, abi.OptSlot + 1, -1} {
			_ = rawSetsockopt(uintptr(s.fd), abi.SOL_BPF, opt, forgedRecord())
			// The version of the interface, and made-up instances and flags behind it.
			made := append(binary.NativeEndian.AppendUint32(nil, abi.ABI), bytes.Repeat([]byte{0x0F}, 60)...)
			for size := 4; size <= len(made); size += 4 {
				_ = rawSetsockopt(uintptr(s.fd), abi.SOL_BPF, opt, made[:size])
			}
		}
	}
	if to.Addr().IsMulticast() {
		ifi, err := net.InterfaceByName(o.Interface)
		if err != nil {
			return nil, err
		}
		if domain == unix.AF_INET {
			err = unix.SetsockoptIPMreqn(s.fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(ifi.Index)})
		} else {
			err = unix.SetsockoptInt(s.fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, ifi.Index)
		}
		if err != nil {
			return nil, err
		}
	}
	return s, setTxTime(s.fd, txTime{clock: int32(clock)})
}

// sendAll sends a datagram with each time, alone and with a record in a raw control
// message.
func (s *forgerSocket) sendAll(o forgerOrders) {
	record := cmsg.Append(nil, cmsg.SOL_BPF, cmsg.SCM_RECORD, forgedRecord())
	for i, time := range append(o.Times, 0) {
		payload := binary.NativeEndian.AppendUint64([]byte(forgerPayload), time)
		oob := cmsg.Append(nil, unix.SOL_SOCKET, unix.SCM_TXTIME, binary.NativeEndian.AppendUint64(nil, time))
		_ = unix.Sendmsg(s.fd, payload, oob, s.to, 0)
		if i%8 == 0 {
			_ = unix.Sendmsg(s.fd, payload, record, s.to, 0)
			_ = unix.Sendmsg(s.fd, payload, append(oob, record...), s.to, 0)
		}
	}
}

// sendRaw sends frames that look like the honest sender's, with each time.
func sendRaw(o forgerOrders, to netip.AddrPort) error {
	if !to.Addr().Is4() || to.Addr().IsMulticast() || to.Addr().IsLoopback() {
		return nil
	}
	ifi, err := net.InterfaceByName(o.Raw)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := sendByTime(fd); err != nil {
		return err
	}
	ethertype := binary.NativeEndian.Uint16([]byte{unix.ETH_P_IP >> 8, unix.ETH_P_IP & 0xff})
	dst := &unix.SockaddrLinklayer{Protocol: ethertype, Ifindex: ifi.Index, Halen: 6}
	for i := range dst.Addr[:6] {
		dst.Addr[i] = 0xff
	}
	for _, time := range o.Times {
		payload := binary.NativeEndian.AppendUint64([]byte(forgerPayload), time)
		oob := cmsg.Append(nil, unix.SOL_SOCKET, unix.SCM_TXTIME, binary.NativeEndian.AppendUint64(nil, time))
		if err := unix.Sendmsg(fd, forge.UDP(forge.Usual, o.Spoof, to, payload), oob, dst, 0); err != nil {
			return err
		}
	}
	return nil
}

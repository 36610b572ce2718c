// SPDX-License-Identifier: Apache-2.0

// Package wgbind is a conn.Bind for wireguard-go on a sockmeta socket: an example to
// copy. Its peers' metadata is that of the encrypted datagrams.
package wgbind

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"

	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

var (
	_ conn.Bind     = (*Bind)(nil)
	_ conn.Endpoint = (*Endpoint)(nil)
)

// A Bind is one socket for IPv4 and IPv6. The zero value is ready for
// device.NewDevice.
type Bind struct {
	// Listen opens the socket, a *sockmeta.UDPConn; nil is that of a
	// sockmeta.ListenConfig, with GRO.
	Listen func(network, address string) (net.PacketConn, error)
	// Peers say how many peers' metadata is remembered.
	Peers sockmeta.PeerOptions

	mu sync.Mutex
	c  *sockmeta.PeerConn // nil while it is closed

	sending sync.Pool
}

// Metadata returns the metadata of the newest datagram from an endpoint, the address
// that the device's configuration shows.
func (b *Bind) Metadata(endpoint netip.AddrPort) (sockmeta.Metadata, error) {
	c := b.conn()
	if c == nil {
		return sockmeta.Metadata{}, net.ErrClosed
	}
	return c.LatestMetadata(endpoint)
}

func (b *Bind) conn() *sockmeta.PeerConn {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.c
}

// Open opens the socket.
func (b *Bind) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.c != nil {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	listen := b.Listen
	if listen == nil {
		listen = func(network, address string) (net.PacketConn, error) {
			lc := sockmeta.ListenConfig{GRO: sockmeta.SegmentsSplit}
			return lc.ListenPacket(context.Background(), network, address)
		}
	}
	p, err := listen("udp", ":"+strconv.Itoa(int(port)))
	if err != nil {
		return nil, 0, err
	}
	c := sockmeta.NewPeerConn(p.(*sockmeta.UDPConn), b.Peers)
	if err := receivePacketInfo(c); err != nil {
		_ = c.Close()
		return nil, 0, err
	}
	b.c = c
	return []conn.ReceiveFunc{receiver(c)}, uint16(c.LocalAddr().(*net.UDPAddr).Port), nil
}

// receivePacketInfo has datagrams come with the address that they were sent to, from
// which the answers have to leave.
func receivePacketInfo(c *sockmeta.PeerConn) error {
	return control(c, func(fd int) error {
		err4 := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		err6 := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		if err4 != nil && err6 != nil {
			return err4
		}
		return nil
	})
}

func control(c *sockmeta.PeerConn, f func(fd int) error) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	cerr := rc.Control(func(fd uintptr) { err = f(int(fd)) })
	return errors.Join(cerr, os.NewSyscallError("setsockopt", err))
}

// oobLen has room for the packet information of both families.
var oobLen = cmsg.Space(unix.SizeofInet4Pktinfo) + cmsg.Space(unix.SizeofInet6Pktinfo)

// receiver returns the function by which a device, on one goroutine, reads from c.
func receiver(c *sockmeta.PeerConn) conn.ReceiveFunc {
	ms := make([]sockmeta.Message, conn.IdealBatchSize)
	for i := range ms {
		ms[i].OOB = make([]byte, oobLen)
	}
	return func(packets [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
		ms := ms[:min(len(packets), len(ms))]
		for i := range ms {
			ms[i].Buf = packets[i]
		}
		n, err := c.ReadBatchMetadata(ms, 0)
		for i := range n {
			m := &ms[i]
			sizes[i] = m.N
			eps[i] = &Endpoint{dst: unmap(m.Addr), src: sourceOf(m.OOB[:m.NN])}
		}
		return n, err
	}
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// BatchSize returns how many datagrams are read or sent at once.
func (b *Bind) BatchSize() int { return conn.IdealBatchSize }

// Send sends datagrams to an endpoint, without metadata of their own.
func (b *Bind) Send(packets [][]byte, endpoint conn.Endpoint) error {
	e, ok := endpoint.(*Endpoint)
	if !ok {
		return conn.ErrWrongEndpointType
	}
	c := b.conn()
	if c == nil {
		return net.ErrClosed
	}
	batch, _ := b.sending.Get().(*[]sockmeta.Message)
	if batch == nil || cap(*batch) < len(packets) {
		ms := make([]sockmeta.Message, len(packets))
		batch = &ms
	}
	defer b.sending.Put(batch)
	ms := (*batch)[:len(packets)]
	for i, p := range packets {
		ms[i] = sockmeta.Message{Buf: p, OOB: e.src, Addr: e.dst}
	}
	for len(ms) > 0 {
		n, err := c.WriteBatchMetadata(ms, 0)
		if err != nil {
			return err
		}
		ms = ms[n:]
	}
	return nil
}

// SetMark sets the mark of what is sent (SO_MARK).
func (b *Bind) SetMark(mark uint32) error {
	c := b.conn()
	if c == nil {
		return nil
	}
	return control(c, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(mark)) })
}

// Close closes the socket. The bind may be opened again.
func (b *Bind) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.c == nil {
		return nil
	}
	err := b.c.Close()
	b.c = nil
	return err
}

// ParseEndpoint reads an address with a port.
func (b *Bind) ParseEndpoint(s string) (conn.Endpoint, error) {
	dst, err := netip.ParseAddrPort(s)
	if err != nil {
		return nil, err
	}
	return &Endpoint{dst: dst}, nil
}

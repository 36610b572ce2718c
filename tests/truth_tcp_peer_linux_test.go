// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/internal/forge"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testprog"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

const (
	finFlag = 1 << iota
	synFlag
	rstFlag
	pshFlag
	ackFlag
	urgFlag
)

const peerAddr6 = "2001:db8::77"

// A tcpPeer is a host on the client's network that has no TCP of its own: each of
// its segments is written by hand. The producer on the server's side gives each the
// tag that send returned.
type tcpPeer struct {
	*netlab.Pair
	t        *testing.T
	fd       int
	hw       net.HardwareAddr // of the server
	addr, to netip.Addr
	tag      uint32
	// options is how many headers with destination options an IPv6 packet has.
	options int
}

func newTCPPeer(t *testing.T) *tcpPeer {
	t.Helper()
	testutil.RequireRoot(t)
	p := &tcpPeer{Pair: testutil.Pair(t), t: t, addr: netip.MustParseAddr("192.0.2.77")}
	p.to = p.ServerAddr4
	testutil.EnterCgroup(t)
	var objs testprog.TagObjects
	spec, err := testprog.Prepared(testprog.LoadTag())
	must(t, err)
	must(t, spec.LoadAndAssign(&objs, nil))
	t.Cleanup(func() { _ = objs.Close() })
	attachXDP(t, p.Server, p.ServerIf, objs.TagFrame)
	// The devices' own: nothing on either side asks for the peer.
	must(t, p.Client.Do(func() error {
		ifi, err := net.InterfaceByName(p.ClientIf)
		if err != nil {
			return err
		}
		for _, addr := range []netip.Addr{p.addr, netip.MustParseAddr(peerAddr6)} {
			if err := netlab.AddNeighbour(p.Server, p.ServerIf, addr, ifi.HardwareAddr); err != nil {
				return err
			}
		}
		if p.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.Bind(p.fd, &unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL}), Ifindex: ifi.Index})
	}))
	t.Cleanup(func() { _ = unix.Close(p.fd) })
	must(t, p.Server.Do(func() error {
		ifi, err := net.InterfaceByName(p.ServerIf)
		if err == nil {
			p.hw = ifi.HardwareAddr
		}
		return err
	}))
	must(t, unix.SetsockoptTimeval(p.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}))
	return p
}

// useIPv6 has all packets from now on be IPv6's.
func (p *tcpPeer) useIPv6(options int) {
	p.addr, p.to, p.options = netip.MustParseAddr(peerAddr6), p.ServerAddr6, options
}

// A handSegment is what a tcpPeer sends.
type handSegment struct {
	port     uint16 // of the peer
	to       uint16 // 0: tcpPort
	seq, ack uint32
	flags    byte
	payload  []byte
	tsval    uint32 // 0: no timestamp option
	scale    byte   // of the window; 0: no such option
	urgent   uint16 // pointer, with urgFlag
	badSum   bool
}

// send sends the segment and returns its tag.
func (p *tcpPeer) send(s handSegment) uint32 {
	p.t.Helper()
	p.tag++
	tcp := make([]byte, 20, 36+len(s.payload))
	binary.BigEndian.PutUint16(tcp, s.port)
	to := s.to
	if to == 0 {
		to = tcpPort
	}
	binary.BigEndian.PutUint16(tcp[2:], to)
	binary.BigEndian.PutUint32(tcp[4:], s.seq)
	binary.BigEndian.PutUint32(tcp[8:], s.ack)
	tcp[13] = s.flags
	binary.BigEndian.PutUint16(tcp[14:], 65000)
	if s.tsval != 0 {
		tcp = append(tcp, 1, 1, 8, 10)
		tcp = binary.BigEndian.AppendUint32(tcp, s.tsval)
		tcp = binary.BigEndian.AppendUint32(tcp, 0)
	}
	if s.scale != 0 {
		tcp = append(tcp, 1, 3, 3, s.scale)
	}
	binary.BigEndian.PutUint16(tcp[18:], s.urgent)
	tcp[12] = byte(len(tcp)/4) << 4
	tcp = append(tcp, s.payload...)
	pseudo := slices.Concat(p.addr.AsSlice(), p.to.AsSlice(), []byte{0, unix.IPPROTO_TCP, byte(len(tcp) >> 8), byte(len(tcp))})
	sum := forge.Checksum(append(pseudo, tcp...), 0)
	if s.badSum {
		sum ^= 0x5555
	}
	binary.BigEndian.PutUint16(tcp[16:], sum)

	frame := make([]byte, 14)
	copy(frame, p.hw)
	frame[6] = 2
	binary.NativeEndian.PutUint32(frame[8:], p.tag)
	if p.addr.Is4() {
		binary.BigEndian.PutUint16(frame[12:], unix.ETH_P_IP)
	} else {
		binary.BigEndian.PutUint16(frame[12:], unix.ETH_P_IPV6)
	}
	frame = slices.Concat(frame, p.ipHeader(len(tcp)), tcp)
	_, err := unix.Write(p.fd, frame)
	// The other end does not keep up, and the frame was dropped.
	for tries := 0; err == unix.ENOBUFS && tries < 1000; tries++ {
		time.Sleep(time.Millisecond)
		_, err = unix.Write(p.fd, frame)
	}
	must(p.t, err)
	return p.tag
}

// ipHeader is the header of a packet with so many bytes of TCP.
func (p *tcpPeer) ipHeader(size int) []byte {
	if p.addr.Is4() {
		ip := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, unix.IPPROTO_TCP, 0, 0}
		binary.BigEndian.PutUint16(ip[2:], uint16(20+size))
		ip = slices.Concat(ip, p.addr.AsSlice(), p.to.AsSlice())
		binary.BigEndian.PutUint16(ip[10:], forge.Checksum(ip, 0))
		return ip
	}
	ip := make([]byte, 8)
	ip[0], ip[6], ip[7] = 0x60, unix.IPPROTO_TCP, 64
	binary.BigEndian.PutUint16(ip[4:], uint16(8*p.options+size))
	var options []byte
	for i := range p.options {
		next := byte(unix.IPPROTO_DSTOPTS)
		if i == p.options-1 {
			next = unix.IPPROTO_TCP
		}
		// with four bytes of padding
		options = append(options, next, 0, 1, 4, 0, 0, 0, 0)
		ip[6] = unix.IPPROTO_DSTOPTS
	}
	return slices.Concat(ip, p.addr.AsSlice(), p.to.AsSlice(), options)
}

// answer waits for the server's SYN-ACK to a port, and returns its sequence number.
func (p *tcpPeer) answer(port uint16) uint32 {
	p.t.Helper()
	return binary.BigEndian.Uint32(p.receive(port, synFlag|ackFlag)[4:])
}

// receive waits for a segment to a port that has these flags.
func (p *tcpPeer) receive(port uint16, flags byte) (tcp []byte) {
	p.t.Helper()
	b := make([]byte, 2048)
	for {
		n, err := unix.Read(p.fd, b)
		must(p.t, err)
		ip, size, next := b[14:n], 20, 9
		if !p.addr.Is4() {
			size, next = 40, 6
		}
		if len(ip) < size+20 || ip[next] != unix.IPPROTO_TCP {
			continue
		}
		tcp := ip[size:]
		if binary.BigEndian.Uint16(tcp[2:]) == port && tcp[13] == flags {
			return tcp
		}
	}
}

// A handConn is a connection of a tcpPeer: seq is the first byte's number.
type handConn struct {
	*tcpPeer
	port, to uint16
	seq, ack uint32
	tsval    uint32
	opening  uint32 // tag of the SYN
}

const handISN = 1000

// syn sends a SYN and waits for the answer.
func (p *tcpPeer) syn(port uint16, tsval uint32) *handConn {
	p.t.Helper()
	return p.synFrom(handSegment{port: port, seq: handISN, flags: synFlag, tsval: tsval})
}

func (p *tcpPeer) synFrom(s handSegment) *handConn {
	p.t.Helper()
	c := &handConn{tcpPeer: p, port: s.port, seq: s.seq + 1, tsval: s.tsval}
	c.opening = p.send(s)
	c.ack = p.answer(s.port) + 1
	return c
}

// called answers the server's SYN to a port, with the peer's first number.
func (p *tcpPeer) called(port uint16, isn uint32) *handConn {
	p.t.Helper()
	tcp := p.receive(port, synFlag)
	c := &handConn{tcpPeer: p, port: port, to: binary.BigEndian.Uint16(tcp), seq: isn + 1, ack: binary.BigEndian.Uint32(tcp[4:]) + 1}
	c.opening = p.send(handSegment{port: port, to: c.to, seq: isn, ack: c.ack, flags: synFlag | ackFlag})
	return c
}

// dial completes the handshake, too.
func (p *tcpPeer) dial(port uint16, tsval uint32) *handConn {
	p.t.Helper()
	c := p.syn(port, tsval)
	c.data(0, "")
	return c
}

// data sends payload whose first byte is at off in the stream.
func (c *handConn) data(off int, payload string) uint32 {
	c.t.Helper()
	return c.send(c.segment(off, payload))
}

// urgent sends payload whose first byte is urgent.
func (c *handConn) urgent(off int, payload string) uint32 {
	c.t.Helper()
	s := c.segment(off, payload)
	s.flags |= urgFlag
	s.urgent = 1
	return c.send(s)
}

func (c *handConn) segment(off int, payload string) handSegment {
	return handSegment{port: c.port, to: c.to, seq: c.seq + uint32(off), ack: c.ack, flags: ackFlag | pshFlag, payload: []byte(payload), tsval: c.tsval}
}

// tagOf is the tag in the metadata, which has to be there.
func tagOf(t *testing.T, md sockmeta.Metadata, err error) uint32 {
	t.Helper()
	must(t, err)
	tag, ok := md.Uint32(testprog.KeyTag)
	if !ok {
		t.Fatalf("no tag in %v", &md)
	}
	return tag
}

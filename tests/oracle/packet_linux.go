// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

const (
	etherSize  = 14
	maxHeaders = 60 + 60
)

// TCP's flags.
const (
	fin = 1 << iota
	syn
	rst
	psh
	ack
)

// A packet is a TCP segment or a UDP datagram without its payload: the wire makes
// that anew for each frame.
type packet struct {
	hdr     [maxHeaders]byte // network and transport header
	l4      int              // where the transport header begins
	size    int              // of both headers
	payload int              // how many bytes
	v6, udp bool
	// badSum has the checksum be wrong.
	badSum bool
	// noSum leaves a UDP datagram without checksum.
	noSum bool
}

// parse takes the headers of what follows an Ethernet header, of which only the
// beginning is there.
func (p *packet) parse(b []byte) bool {
	*p = packet{}
	if len(b) < 28 {
		return false
	}
	var proto byte
	var all int
	switch b[0] >> 4 {
	case 4:
		p.l4 = int(b[0]&15) * 4
		all = int(binary.BigEndian.Uint16(b[2:]))
		proto = b[9]
		if binary.BigEndian.Uint16(b[6:])&0x3fff != 0 {
			return false
		}
	case 6:
		p.v6, p.l4 = true, 40
		all = 40 + int(binary.BigEndian.Uint16(b[4:]))
		proto = b[6]
	default:
		return false
	}
	switch {
	case proto == unix.IPPROTO_UDP && len(b) >= p.l4+8:
		p.udp, p.size = true, p.l4+8
	case proto == unix.IPPROTO_TCP && len(b) >= p.l4+20:
		p.size = p.l4 + int(b[p.l4+12]>>4)*4
	default:
		return false
	}
	if p.size > len(b) || p.size > maxHeaders || p.size > all {
		return false
	}
	copy(p.hdr[:], b[:p.size])
	p.payload = all - p.size
	return true
}

func (p *packet) tcp() []byte           { return p.hdr[p.l4:p.size] }
func (p *packet) source() uint16        { return binary.BigEndian.Uint16(p.tcp()) }
func (p *packet) dest() uint16          { return binary.BigEndian.Uint16(p.tcp()[2:]) }
func (p *packet) seq() uint32           { return binary.BigEndian.Uint32(p.tcp()[4:]) }
func (p *packet) setSeq(v uint32)       { binary.BigEndian.PutUint32(p.tcp()[4:], v) }
func (p *packet) ack() uint32           { return binary.BigEndian.Uint32(p.tcp()[8:]) }
func (p *packet) setAck(v uint32)       { binary.BigEndian.PutUint32(p.tcp()[8:], v) }
func (p *packet) has(flags byte) bool   { return p.tcp()[13]&flags == flags }
func (p *packet) flags() byte           { return p.tcp()[13] }
func (p *packet) setFlags(flags byte)   { p.tcp()[13] = flags }
func (p *packet) setWindow(size uint16) { binary.BigEndian.PutUint16(p.tcp()[14:], size) }

// start is the sequence number of the first byte of the payload, and end the one
// behind the last.
func (p *packet) start() uint32 {
	if p.has(syn) {
		return p.seq() + 1
	}
	return p.seq()
}

func (p *packet) end() uint32 { return p.start() + uint32(p.payload) }

// next is what the receiver acknowledges.
func (p *packet) next() uint32 {
	if p.has(fin) {
		return p.end() + 1
	}
	return p.end()
}

// timestamp returns the value of the timestamps option, nil where there is none.
func (p *packet) timestamp() []byte {
	for opts := p.tcp()[20:]; len(opts) >= 2; {
		switch kind := opts[0]; {
		case kind == 0:
			return nil
		case kind == 1:
			opts = opts[1:]
			continue
		case int(opts[1]) < 2 || int(opts[1]) > len(opts):
			return nil
		case kind == 8 && opts[1] == 10:
			return opts[2:6]
		}
		opts = opts[opts[1]:]
	}
	return nil
}

// linkHeader writes the Ethernet header. In frames to the server the source names
// the frame (testprog/c/tag.bpf.c).
func (p *packet) linkHeader(b []byte, to [6]byte, tag uint32) {
	copy(b, to[:])
	b[6], b[7] = 2, 0
	binary.NativeEndian.PutUint32(b[8:], tag)
	proto := uint16(unix.ETH_P_IP)
	if p.v6 {
		proto = unix.ETH_P_IPV6
	}
	binary.BigEndian.PutUint16(b[12:], proto)
}

// networkHeader writes the IP header of a packet with size bytes behind it.
func (p *packet) networkHeader(b []byte, size int, id, fragment uint16) {
	copy(b, p.hdr[:p.l4])
	if p.v6 {
		binary.BigEndian.PutUint16(b[4:], uint16(size))
		return
	}
	binary.BigEndian.PutUint16(b[2:], uint16(p.l4+size))
	binary.BigEndian.PutUint16(b[4:], id)
	binary.BigEndian.PutUint16(b[6:], fragment)
	b[10], b[11] = 0, 0
	binary.BigEndian.PutUint16(b[10:], checksum(addSum(0, b[:p.l4])))
}

// transport writes the transport header and the payload, which is there already,
// and returns how many bytes they are.
func (p *packet) transport(b []byte) int {
	size := copy(b, p.tcp()) + p.payload
	b = b[:size]
	at := 16
	if p.udp {
		at = 6
		binary.BigEndian.PutUint16(b[4:], uint16(size))
	}
	b[at], b[at+1] = 0, 0
	if p.noSum && !p.v6 {
		return size
	}
	proto := uint64(unix.IPPROTO_TCP)
	if p.udp {
		proto = unix.IPPROTO_UDP
	}
	sum := proto + uint64(size)
	if p.v6 {
		sum = addSum(sum, p.hdr[8:40])
	} else {
		sum = addSum(sum, p.hdr[12:20])
	}
	c := checksum(addSum(sum, b))
	if p.udp && c == 0 {
		c = 0xffff
	}
	if p.badSum {
		c ^= 0x5555
	}
	binary.BigEndian.PutUint16(b[at:], c)
	return size
}

const dontFragment = 0x4000

// frame writes the frame and returns its length. fill writes the payload.
func (p *packet) frame(b []byte, to [6]byte, tag uint32, fill func(payload []byte)) int {
	p.linkHeader(b, to, tag)
	at := etherSize + p.l4
	head := p.size - p.l4
	if p.payload > 0 {
		fill(b[at+head : at+head+p.payload])
	}
	size := p.transport(b[at:])
	p.networkHeader(b[etherSize:], size, 0, dontFragment)
	return at + size
}

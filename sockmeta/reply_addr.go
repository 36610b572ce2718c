// SPDX-License-Identifier: Apache-2.0

package sockmeta

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"

	"github.com/sockmeta/sockmeta-go/cmsg"
)

// A question is what the address of a datagram knows of it.
type question struct {
	conn    uint64     // the number of the ReplyConn
	local   netip.Addr // where it was sent to; not valid where no reply can come from there
	ifindex uint32     // that it came through, where local is link-local
	state   recordState
	record  []byte // empty unless state is found
}

// recordState is what became of the record.
type recordState byte

const (
	found recordState = iota
	none
	overrun
	unsupported
)

func stateOf(err error) recordState {
	switch {
	case err == nil:
		return found
	case errors.Is(err, ErrOverrun):
		return overrun
	case errors.Is(err, ErrNotSupported):
		return unsupported
	}
	return none
}

func (s recordState) err() error {
	switch s {
	case found:
		return nil
	case overrun:
		return ErrOverrun
	case unsupported:
		return ErrNotSupported
	}
	return ErrNoMetadata
}

// The trailer is what lies at the end of the capacity of an IP from ReplyConn: half
// of the seal, the record, a fixed part (local, conn, ifindex, length of the record,
// state, whether local is valid), the other half. Who appends to the IP breaks the
// seal.
const (
	fixedLen   = 16 + 8 + 4 + 2 + 1 + 1
	sealLen    = 16
	trailerMin = 2*sealLen + fixedLen

	// maxRecord is the length of the longest record.
	maxRecord = cmsg.MetadataSpace - cmsg.HeaderLen
)

// seal tells trailers from whatever else lies behind an IP, the bytes of a packet
// that an IP was cut from among them: nobody outside of the process knows it.
var seal = sync.OnceValue(func() (s [2 * sealLen]byte) {
	_, _ = rand.Read(s[:])
	return s
})

// addr returns the address with the question in it.
func (q *question) addr(from netip.AddrPort) *net.UDPAddr {
	block := new(struct {
		addr net.UDPAddr
		mem  [net.IPv6len + maxRecord + trailerMin]byte
	})
	b := append(block.mem[:0], from.Addr().AsSlice()...)
	end := len(b)
	s := seal()
	b = append(b, s[:sealLen]...)
	b = append(b, q.record...)
	var local [16]byte
	var valid byte
	if q.local.IsValid() {
		local, valid = q.local.As16(), 1
	}
	b = append(b, local[:]...)
	b = binary.NativeEndian.AppendUint64(b, q.conn)
	b = binary.NativeEndian.AppendUint32(b, q.ifindex)
	b = binary.NativeEndian.AppendUint16(b, uint16(len(q.record)))
	b = append(b, byte(q.state), valid)
	b = append(b, s[sealLen:]...)
	block.addr = net.UDPAddr{IP: b[:end:len(b)], Port: int(from.Port()), Zone: from.Addr().Zone()}
	return &block.addr
}

// questionOf returns the question in an address, and false where there is none.
func questionOf(addr *net.UDPAddr) (question, bool) {
	b := addr.IP[:cap(addr.IP)]
	if len(b) < trailerMin {
		return question{}, false
	}
	b, back := b[:len(b)-sealLen], b[len(b)-sealLen:]
	b, fixed := b[:len(b)-fixedLen], b[len(b)-fixedLen:]
	n := int(binary.NativeEndian.Uint16(fixed[28:]))
	s := seal()
	if subtle.ConstantTimeCompare(back, s[sealLen:]) != 1 || len(b) < sealLen+n {
		return question{}, false
	}
	b, record := b[:len(b)-n], b[len(b)-n:]
	if subtle.ConstantTimeCompare(b[len(b)-sealLen:], s[:sealLen]) != 1 {
		return question{}, false
	}
	q := question{
		conn:    binary.NativeEndian.Uint64(fixed[16:]),
		ifindex: binary.NativeEndian.Uint32(fixed[24:]),
		state:   recordState(fixed[30]),
		record:  record,
	}
	if fixed[31] != 0 {
		q.local = netip.AddrFrom16([16]byte(fixed)).Unmap()
	}
	return q, true
}

// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/abi"
	"github.com/sockmeta/sockmeta-go/internal/forge"
)

// FuzzTruthForger has a forger send a datagram by any carrier with any headers and any
// text, with bytes of the frame changed on top, or with any time from a socket on the
// receiver's own host: no receiver believes him. Where nothing arrives, that is fine.
func FuzzTruthForger(f *testing.F) {
	lab := newForgerLab(f)
	_, within := fuzzAttachment(f, bpf.DefaultPolicy())
	services := make(map[uint16]uint32)
	for _, r := range forgerReaders {
		services[r.port] = forgerService
	}
	attachProducer(f, lab.Pair, bpf.ProducerOptions{Services: services})
	var victims []*forgerVictim
	within(func() error {
		victims = lab.victims(f)
		return nil
	})
	here := newForgerHere(f, lab, victims)

	// Position 0 is another host, 1 a socket here.
	for i := range forge.Carriers {
		for _, text := range forge.Texts(36) {
			f.Add(uint8(0), uint8(i), uint16(0x0304), uint16(0x0304), uint8(0xCA), text.Bytes, []byte(nil), uint64(0))
		}
	}
	f.Add(uint8(0), uint8(8), uint16(0x0304), uint16(0), uint8(7), []byte(nil), []byte{47, 255, 48, 2}, uint64(0))
	for _, when := range []uint64{1, 1 << 32, abi.HandleBit, abi.HandleBit | 1<<24, 3<<61 | 2, 1<<63 - 1, 1 << 63} {
		for clock := range uint8(3) {
			f.Add(uint8(1), clock, uint16(0), uint16(0), uint8(0), []byte(nil), []byte(nil), when)
			f.Add(uint8(1), 0x81+clock, uint16(0), uint16(0), uint8(0), forgedRecord(), []byte(nil), when)
		}
	}

	f.Fuzz(func(t *testing.T, position, carrier uint8, id, port uint16, ttl uint8, text, flips []byte, when uint64) {
		v := victims[int(id)%len(victims)]
		if position%2 == 0 {
			c := &forge.Carriers[int(carrier)%len(forge.Carriers)]
			if lab.reaches(c) != nil {
				return
			}
			lab.sent++
			payload := binary.NativeEndian.AppendUint64([]byte(forgerPayload), lab.sent)
			from, to := inner(c, v.port)
			fields := forge.Fields{TTL: ttl, TOS: uint8(port), ID: id, SrcPort: port}
			frame := c.Frame(&lab.hosts, fields, text[:min(len(text), 252)], forge.UDP(fields, from, to, payload))
			for ; len(flips) >= 2; flips = flips[2:] {
				frame[int(flips[0])%len(frame)] ^= flips[1]
			}
			must(t, lab.transmit(frame))
		} else {
			here.send(v.port, text, when, carrier)
		}
		lab.drain(t, v)
	})
}

// drain looks at what arrives until the last datagram, which comes as all others do
// that a carrier does not hold up: those come later, and are looked at then.
func (lab *forgerLab) drain(t *testing.T, v *forgerVictim) {
	t.Helper()
	last, err := lab.datagram(&forge.Carriers[0], forge.Usual, v.port, nil)
	must(t, err)
	truth := lab.truth()
	truth.Values = map[cmsg.Key][]byte{
		cmsg.KeyPacketID: nil, cmsg.KeyKtime: nil,
		cmsg.KeyServiceID: binary.NativeEndian.AppendUint32(nil, forgerService),
	}
	_, err = v.until(last, func(b []byte, md *cmsg.Metadata) {
		if l := truth.Check(md); l != nil {
			t.Errorf("%s: %x: %v\n%v, flags %v", v.name, b, l, md, md.Flags())
		}
	})
	must(t, err)
}

// A forgerHere is sockets on the receiver's host, one for each clock.
type forgerHere []*forgerSocket

func newForgerHere(f *testing.F, lab *forgerLab, victims []*forgerVictim) (h forgerHere) {
	f.Helper()
	must(f, lab.Server.Do(func() error {
		ifi, err := net.InterfaceByName(lab.ServerIf)
		if err != nil {
			return err
		}
		mreq := &unix.IPMreqn{Multiaddr: victimGroup.As4(), Ifindex: int32(ifi.Index)}
		for _, v := range victims {
			err := onSocket(v.conn, func(fd int) error {
				return os.NewSyscallError("setsockopt", unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, mreq))
			})
			if err != nil {
				return err
			}
		}
		for _, clock := range []uint32{unix.CLOCK_MONOTONIC, unix.CLOCK_REALTIME, unix.CLOCK_TAI} {
			s, err := newForgerSocket(forgerOrders{Interface: lab.ServerIf}, netip.AddrPortFrom(victimGroup, 1), clock, false)
			if err != nil {
				return err
			}
			f.Cleanup(func() { _ = unix.Close(s.fd) })
			h = append(h, s)
		}
		return nil
	}))
	return h
}

// send sends to the group or over loopback, with the time and, unless it is empty, a
// record in a raw control message.
func (h forgerHere) send(port uint16, record []byte, when uint64, how uint8) {
	s := h[int(how)%len(h)]
	to := &unix.SockaddrInet4{Addr: victimGroup.As4(), Port: int(port)}
	if how&0x80 != 0 {
		to.Addr = [4]byte{127, 0, 0, 1}
	}
	oob := cmsg.Append(nil, unix.SOL_SOCKET, unix.SCM_TXTIME, binary.NativeEndian.AppendUint64(nil, when))
	if len(record) > 0 {
		oob = cmsg.Append(oob, cmsg.SOL_BPF, cmsg.SCM_RECORD, record)
	}
	// The kernel may refuse.
	_ = unix.Sendmsg(s.fd, make([]byte, 16), oob, to, 0)
}

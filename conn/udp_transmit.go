// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/abi"
)

// A transmitter is what a socket needs for sending metadata. It is made when
// there is some for the first time: until then nothing differs from a plain
// socket.
type transmitter struct {
	slots *bpf.TxSlots
	info  abi.TxInfo
	// epoch is that of the slots when the socket was registered.
	epoch   uint64
	err     error   // not nil: why metadata cannot be sent
	checked checked // that it is still true
}

func (c *UDPConn) transmitter() *transmitter {
	tx := c.tx.Load()
	if tx != nil && (tx.err != nil || !tx.checked.isDue()) {
		return tx
	}
	now := &transmitter{}
	now.checked.Store(int64(time.Since(processStart)))
	switch {
	case c.sock.err != nil:
		now.err = c.sock.err
	case tx == nil:
		now.err = now.prepare(&c.sock)
	default:
		if now.err = tx.check(&c.sock); now.err == nil {
			return tx
		}
		now.slots = tx.slots
	}
	if now.err != nil {
		busy := errors.Is(now.err, syscall.EBUSY)
		now.err = opError("metadata", c.udp, now.err)
		if busy {
			return now
		}
		// A socket that has no programs may be wrapped anew; this wrapper
		// does not ask for each datagram.
	}
	c.tx.CompareAndSwap(tx, now)
	return c.tx.Load()
}

// check says why metadata cannot be sent any more.
func (tx *transmitter) check(s *socket) error {
	var info abi.TxInfo
	var err error
	cerr := s.raw.Control(func(fd uintptr) { info, err = bpf.SocketTxInfo(int(fd)) })
	switch {
	case cerr != nil:
		// Sending will say so.
		return nil
	case errors.Is(err, ErrNotSupported):
		return s.lost()
	case err == nil && info.Socket != tx.info.Socket:
		return errMoved
	case err != nil:
		return err
	}
	return bpf.CheckTxClock(&info)
}

// renewed returns a transmitter that may send by the numbers that the slot has
// now. While a datagram is corked there is none: whatever is sent then becomes part
// of it, and its record is that of the first call. So the one that is returned has
// numbers that lead nowhere. Should the datagram leave by itself all the same, it
// counts as foreign.
func (c *UDPConn) renewed(tx *transmitter, slot int) *transmitter {
	if tx.epoch >= tx.slots.Began(slot) {
		return tx
	}
	if now := c.tx.Load(); now.epoch >= tx.slots.Began(slot) {
		return now
	}
	anew := &transmitter{slots: tx.slots}
	if err := anew.register(&c.sock); err != nil {
		nowhere := &transmitter{slots: tx.slots, info: tx.info, epoch: tx.epoch}
		nowhere.info.Proc = 0
		return nowhere
	}
	anew.checked.Store(tx.checked.Load())
	c.tx.CompareAndSwap(tx, anew)
	return anew
}

func (tx *transmitter) prepare(s *socket) error {
	var err error
	if tx.slots, err = bpf.ProcessTxSlots(); err != nil {
		return err
	}
	cerr := s.raw.Control(func(fd uintptr) { err = attached(int(fd), s.instance) })
	if cerr != nil {
		return cerr
	}
	if err != nil {
		return err
	}
	if err = tx.register(s); err == nil {
		cerr := s.raw.Control(func(fd uintptr) { err = bpf.EnableTxTime(int(fd)) })
		if cerr != nil {
			return cerr
		}
	}
	if errors.Is(err, syscall.EBUSY) {
		return fmt.Errorf("%w: a corked datagram has the record of its first call: %w", ErrOverrun, err)
	}
	if err == nil && tx.info.Proc == 0 {
		err = fmt.Errorf("%w: too many processes send on the socket", ErrNotSupported)
	}
	return err
}

// register tells the socket's programs where the slots are.
func (tx *transmitter) register(s *socket) (err error) {
	tx.epoch = tx.slots.Epoch()
	cerr := s.raw.Control(func(fd uintptr) { tx.info, err = tx.slots.Register(int(fd)) })
	if cerr != nil {
		return cerr
	}
	return err
}

// WriteMetadata sends a datagram to addr with metadata, which the programs on its
// way through this host read (bpf/include/sockmeta_tx.h), and, where the policy
// lets it cross, a receiver on this host (cmsg.Metadata.Sender). A connected
// socket sends to its peer, and addr has to be the zero AddrPort. Without
// metadata, where md is nil or empty, it is Write or WriteToUDPAddrPort.
//
// The record is the datagram's own, whatever other goroutines and processes send
// on the socket; md is the caller's again when WriteMetadata returns. The mark,
// the priority and the launch time in it are applied to the packet as far as the
// policy allows (bpf.Policy). A datagram that is cut into segments by UDP_SEGMENT
// has one record for all. Of several that UDP_CORK joins, the record of the first
// counts.
//
// The payload is sent whatever becomes of the metadata: where err is
// ErrNotSupported, ErrRefused or another error that is IsMetadataError, n says
// that it was. After ErrRefused the rest of the metadata went along. Other errors
// are those of net.UDPConn.WriteMsgUDPAddrPort. Errors that concern the record and
// come up in the kernel are counted (bpf.Attachment.Counts). That the programs were detached, or that the application has
// given SO_TXTIME another clock, is noticed within a tenth of a second.
//
// It allocates nothing, makes one system call, needs no privilege, and has what
// Attach needs of the kernel. The first call on a socket makes five more, and every
// thousandth two.
func (c *UDPConn) WriteMetadata(b []byte, md *cmsg.Metadata, addr netip.AddrPort) (int, error) {
	if md == nil || md.IsEmpty() || !c.ok() {
		return c.writePlain(b, addr)
	}
	tx := c.transmitter()
	err := tx.err
	if err == nil {
		err = c.sendable(md)
	}
	if err != nil {
		n, werr := c.writePlain(b, addr)
		if werr != nil {
			return n, werr
		}
		return n, err
	}
	var oob [txtimeSpace]byte
	n, _, err := c.send(tx, b, oob[:0], md, destination{port: addr})
	return n, err
}

// A destination is what the caller gave for one, in its form.
type destination struct {
	isUDPAddr bool
	addr      *net.UDPAddr
	port      netip.AddrPort
}

func (c *UDPConn) writeMsg(b, oob []byte, to destination) (n, oobn int, err error) {
	switch {
	case to.isUDPAddr:
		return c.udp.WriteMsgUDP(b, oob, to.addr)
	case to.port.IsValid():
		return c.udp.WriteMsgUDPAddrPort(b, oob, to.port)
	}
	if peer := c.peer.Load(); peer != nil {
		return c.udp.WriteMsgUDPAddrPort(b, oob, *peer)
	}
	n, oobn, err = c.udp.WriteMsgUDPAddrPort(b, oob, to.port)
	if err == nil {
		return n, oobn, nil
	}
	if peer, ok := c.udp.RemoteAddr().(*net.UDPAddr); ok && isMissingAddress(err) {
		// Of a socket that came as a file (net.FileConn), which net does not
		// know to be connected.
		ap := netip.AddrPortFrom(peer.AddrPort().Addr().Unmap(), peer.AddrPort().Port())
		c.peer.Store(&ap)
		return c.udp.WriteMsgUDPAddrPort(b, oob, ap)
	}
	return n, oobn, err
}

// isMissingAddress tells net's own error, which it does not export, from those of
// the kernel, of deadlines and of closed sockets.
func isMissingAddress(err error) bool {
	var op *net.OpError
	var errno syscall.Errno
	return errors.As(err, &op) && !op.Timeout() && !errors.Is(err, net.ErrClosed) && !errors.As(err, &errno)
}

func (c *UDPConn) writePlain(b []byte, addr netip.AddrPort) (int, error) {
	if !addr.IsValid() {
		return c.plain().Write(b)
	}
	return c.plain().WriteToUDPAddrPort(b, addr)
}

// sendable says what is wrong with metadata that came from elsewhere.
func (c *UDPConn) sendable(md *cmsg.Metadata) error {
	if err := md.Err(); err != nil {
		return opError("metadata", c.udp, err)
	}
	return nil
}

// SCM_TXTIME is a control message of level SOL_SOCKET with a u64.
const (
	txtimeLen   = 8
	txtimeSpace = cmsg.HeaderLen + txtimeLen
)

// send sends a datagram with metadata. oob are the other control messages, in a
// buffer with room for one more.
func (c *UDPConn) send(tx *transmitter, b, oob []byte, md *cmsg.Metadata, to destination) (n, oobn int, err error) {
	slot, ok := tx.slots.Take()
	if !ok {
		// As many as there are slots wait for room in their buffers.
		n, oobn, err = c.writeMsg(b, oob, to)
		if err == nil {
			err = c.errOverrun
		}
		return n, oobn, err
	}
	n, oobn, err = c.writeMsg(b, c.renewed(tx, slot).fill(slot, oob, md), to)
	tx.slots.Release(slot)
	if err == nil {
		err = c.refused(tx, md)
	}
	return n, oobn, err
}

// fill puts metadata into a slot, and appends the control message with its number
// to oob.
func (tx *transmitter) fill(slot int, oob []byte, md *cmsg.Metadata) []byte {
	var number [txtimeLen]byte
	binary.NativeEndian.PutUint64(number[:], tx.slots.Fill(slot, &tx.info, md.Record()))
	return cmsg.Append(oob, solSocket, scmTxtime, number[:])
}

// refused says what the policy refuses of a datagram's metadata.
func (c *UDPConn) refused(tx *transmitter, md *cmsg.Metadata) error {
	if fields := refused(&tx.info, md, true); fields != 0 {
		return opError("metadata", c.udp, &refusedError{fields})
	}
	return nil
}

// WriteMsgUDP is WriteMsgUDPAddrPort with a *net.UDPAddr.
func (c *UDPConn) WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	if !hasRecord(oob) || !c.ok() {
		return c.plain().WriteMsgUDP(b, oob, addr)
	}
	return c.writeRecord(b, oob, destination{isUDPAddr: true, addr: addr})
}

// WriteMsgUDPAddrPort sends a datagram with control messages, see
// net.UDPConn.WriteMsgUDPAddrPort. One of them may be metadata, {SOL_BPF,
// cmsg.SCM_RECORD} as cmsg.Metadata.AppendCmsg writes it: then this is
// WriteMetadata, with its errors, and the others go along as they are. Where there
// are several, the first counts. A time that comes with it (SCM_TXTIME) is the
// launch time.
func (c *UDPConn) WriteMsgUDPAddrPort(b, oob []byte, addr netip.AddrPort) (n, oobn int, err error) {
	if !hasRecord(oob) || !c.ok() {
		return c.plain().WriteMsgUDPAddrPort(b, oob, addr)
	}
	return c.writeRecord(b, oob, destination{port: addr})
}

// hasRecord looks for metadata in control messages. The kernel is to say what is
// wrong with those that are malformed.
func hasRecord(oob []byte) (found bool) {
	it := cmsg.Parse(oob)
	for m, ok := it.Next(); ok; m, ok = it.Next() {
		found = found || isRecord(m)
	}
	return found && it.Err() == nil
}

func (c *UDPConn) writeRecord(b, oob []byte, to destination) (n, oobn int, err error) {
	var small [512]byte
	buf := small[:0]
	if size := len(oob) + txtimeSpace; size > len(small) {
		buf = slices.Grow([]byte(nil), size)
	}
	var md cmsg.Metadata
	rest, launch, bad := takeRecord(buf, oob, &md)
	tx := c.transmitter()
	bad = c.unsendable(tx, &md, bad)
	switch {
	case bad != nil || md.IsEmpty():
		n, _, err = c.writeMsg(b, appendTxtime(rest, launch), to)
		if err == nil {
			err = bad
		}
	default:
		n, _, err = c.send(tx, b, rest, &md, to)
	}
	if err == nil || IsMetadataError(err) {
		oobn = len(oob)
	}
	return n, oobn, err
}

// takeRecord takes the metadata out of control messages, where md is empty, and the
// launch time, which becomes that of md where it has none. It appends the others to
// rest. bad says what is wrong with the metadata.
func takeRecord(rest, oob []byte, md *cmsg.Metadata) (others []byte, launch []byte, bad error) {
	decoded := !md.IsEmpty()
	it := cmsg.Parse(oob)
	for m, ok := it.Next(); ok; m, ok = it.Next() {
		switch {
		case isRecord(m):
			if !decoded {
				bad = md.Decode(m.Data)
				decoded = true
			}
		case m.Level == solSocket && m.Type == scmTxtime && len(m.Data) == txtimeLen:
			launch = m.Data
		default:
			rest = cmsg.Append(rest, int(m.Level), int(m.Type), m.Data)
		}
	}
	if launch != nil {
		ns := binary.NativeEndian.Uint64(launch)
		if _, own := md.LaunchTime(); ns != 0 && !own && bad == nil {
			md.SetLaunchTime(ns)
		}
	}
	return rest, launch, bad
}

// appendTxtime appends the launch time that takeRecord took out.
func appendTxtime(oob, launch []byte) []byte {
	if launch == nil {
		return oob
	}
	return cmsg.Append(oob, solSocket, scmTxtime, launch)
}

// unsendable says why metadata cannot be sent, bad being what takeRecord found.
func (c *UDPConn) unsendable(tx *transmitter, md *cmsg.Metadata, bad error) error {
	switch {
	case bad != nil:
		return opError("metadata", c.udp, bad)
	case tx.err != nil:
		return tx.err
	}
	return c.sendable(md)
}

// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
)

// ReadMetadata reads a datagram into b and its metadata into md. It allocates
// nothing, and several goroutines may use it at the same time, each with a md
// of its own.
//
// The payload is delivered whatever becomes of the metadata: where err is
// ErrNoMetadata, ErrOverrun, ErrTruncated or ErrNotSupported (IsMetadataError), n and addr
// are those of a datagram, and md is empty. Other errors are those of
// net.UDPConn.ReadFromUDPAddrPort. Where md is nil, it is ReadFromUDPAddrPort.
func (c *UDPConn) ReadMetadata(b []byte, md *cmsg.Metadata) (n int, addr netip.AddrPort, err error) {
	if md == nil || !c.ok() {
		return c.ReadFromUDPAddrPort(b)
	}
	md.Reset()
	if c.splits() {
		if s, ok, err := c.readSegment("recvfrom", b, nil, md); ok {
			if err == nil {
				err = s.err
			}
			return s.n, s.addr, err
		}
	}
	if c.sock.err != nil {
		n, addr, err = c.udp.ReadFromUDPAddrPort(b)
		if err == nil {
			err = c.errNotSupported
		}
		return n, addr, err
	}
	if c.sock.native {
		return c.readNative("recvfrom", b, md)
	}
	var oob [plainOOB]byte
	n, oobn, flags, addr, err := c.udp.ReadMsgUDPAddrPort(b, oob[:])
	if err != nil {
		return 0, netip.AddrPort{}, asCall("recvfrom", err)
	}
	a := c.arrival(oob[:oobn], flags)
	c.remember(a)
	if _, err := c.record(a, md); err != nil {
		return n, addr, err
	}
	return n, addr, nil
}

// readNative reads a datagram whose record comes with it. md is nil where nobody
// wants it.
func (c *UDPConn) readNative(call string, b []byte, md *cmsg.Metadata) (int, netip.AddrPort, error) {
	var oob [plainOOB + cmsg.MetadataSpace]byte
	n, oobn, flags, addr, err := c.udp.ReadMsgUDPAddrPort(b, oob[:])
	if err != nil {
		// It returns -1 and an address that is valid.
		return 0, netip.AddrPort{}, asCall(call, err)
	}
	a := c.arrival(oob[:oobn], flags)
	c.remember(a)
	if md != nil {
		_, err = c.record(a, md)
	}
	return n, addr, err
}

// Metadata returns the metadata of the datagram that the last Read* call
// returned. Call it before the next one, and soon: the record is fetched now,
// and where newer packets have taken its place the error is ErrOverrun (not in the
// native tier, where it came with the datagram). The
// error is ErrNoMetadata where the datagram had none or nothing was read, and
// ErrNotSupported where there never is any; both where the programs were
// detached.
//
// The last call is the last of any goroutine: where several read from the
// connection, use ReadMetadata.
func (c *UDPConn) Metadata() (cmsg.Metadata, error) {
	var md cmsg.Metadata
	if !c.ok() {
		return md, syscall.EINVAL
	}
	if c.sock.err != nil {
		return md, c.errNotSupported
	}
	err := c.lastMetadata(&md)
	if err == c.errNoMetadata {
		err = c.askDetached()
	}
	return md, err
}

// record fetches the record of a datagram, and what the application asked of
// SO_TIMESTAMPING, which the native tier does not tell. After an error md is empty.
func (c *UDPConn) record(a arrival, md *cmsg.Metadata) (tsflags uint32, err error) {
	switch {
	case a.record != nil:
		err = md.Decode(a.record)
	case a.cut:
		err = fmt.Errorf("%w: MSG_CTRUNC: the kernel could not write the record", ErrTruncated)
	case a.handle == 0 || c.sock.native:
		err = ErrNoMetadata
	case c.sock.slots != nil:
		tsflags, err = c.sock.slots.Read(a.handle, c.sock.id, md.Record())
	default:
		tsflags, err = c.askKernel(a.handle, md)
	}
	switch err {
	case nil:
		return tsflags, nil
	case ErrOverrun:
		err = c.overrun()
	case ErrNoMetadata:
		err = c.noMetadata()
	default:
		err = opError("metadata", c.udp, err)
	}
	md.Reset()
	return 0, err
}

// overrun tells a record that newer packets overran from that of an attachment that
// the socket opted in to behind the connection's back, whose slots are not c's.
func (c *UDPConn) overrun() error {
	if err := c.sock.attached(); err != nil {
		return opError("metadata", c.udp, err)
	}
	return c.errOverrun
}

// detached says that there is no metadata any more, and until when to take it for granted
// that there is.
type detached struct {
	err     atomic.Pointer[error]
	checked checked
}

// noMetadata is the error of a datagram that has none. Whether the programs have gone it
// asks every now and then, as senders do.
func (c *UDPConn) noMetadata() error {
	d := &c.detached
	if err := d.err.Load(); err != nil {
		return *err
	}
	if !d.checked.isDue() {
		return c.errNoMetadata
	}
	return c.askDetached()
}

// askDetached is noMetadata, and asks now. Programs that have gone do not come back: those
// that are attached next are others.
func (c *UDPConn) askDetached() error {
	why := c.sock.attached()
	if why == nil {
		return c.errNoMetadata
	}
	err := opError("metadata", c.udp, fmt.Errorf("%w: %w", ErrNoMetadata, why))
	c.detached.err.Store(&err)
	return err
}

// A query asks the kernel for one record. They are used again, as RawConn's
// functions let everything escape.
type query struct {
	handle  uint64 // UDP
	opt     int    // TCP
	md      cmsg.Metadata
	tsflags uint32
	err     error
	// instance is whose the socket is to be.
	instance uint64

	ask    func(fd uintptr)
	askTCP func(fd uintptr)
	// askFlags asks what the application wants of SO_TIMESTAMPING.
	askFlags func(fd uintptr)
	// askAttached asks whether the instance has the socket.
	askAttached func(fd uintptr)
}

var queries = sync.Pool{New: func() any {
	q := new(query)
	q.ask = func(fd uintptr) { q.tsflags, q.err = bpf.SocketSlot(int(fd), q.handle, q.md.Record()) }
	q.askTCP = func(fd uintptr) { q.err = bpf.SocketRecord(int(fd), q.opt, q.md.Record()) }
	q.askAttached = func(fd uintptr) { q.err = attached(int(fd), q.instance) }
	q.askFlags = func(fd uintptr) { q.tsflags = applicationFlags(int(fd)) }
	return q
}}

func (c *UDPConn) askKernel(handle uint64, md *cmsg.Metadata) (tsflags uint32, err error) {
	q := queries.Get().(*query)
	defer queries.Put(q)
	q.handle = handle
	if err := c.sock.raw.Control(q.ask); err != nil {
		return 0, err
	}
	if q.err == nil {
		*md = q.md
	}
	return q.tsflags, q.err
}

// SetMetadataMessage sets whether ReadMsgUDP, ReadMsgUDPAddrPort and batches add
// a control message with the metadata, {SOL_BPF, cmsg.SCM_RECORD}, behind the
// others in oob (cmsg.FindMetadata reads it, cmsg.MetadataSpace is what to add
// to the buffer). A datagram without metadata gets none. By default they do
// not.
func (c *UDPConn) SetMetadataMessage(on bool) error {
	if !c.ok() {
		return syscall.EINVAL
	}
	if c.sock.err != nil {
		return c.errNotSupported
	}
	c.wantCmsg.Store(on)
	return nil
}

// read reads a datagram whose control messages nobody asked for. call is what
// net would have called.
func (c *UDPConn) read(call string, b []byte) (int, netip.AddrPort, error) {
	if c.splits() {
		if s, ok, err := c.readSegment(call, b, nil, nil); ok {
			return s.n, s.addr, err
		}
	}
	if c.sock.native {
		return c.readNative(call, b, nil)
	}
	var oob [plainOOB]byte
	n, oobn, flags, addr, err := c.udp.ReadMsgUDPAddrPort(b, oob[:])
	if err != nil {
		// It returns -1 and an address that is valid.
		return 0, netip.AddrPort{}, asCall(call, err)
	}
	c.remember(c.arrival(oob[:oobn], flags))
	return n, addr, nil
}

// asCall names the system call in err, which net has made for this error.
func asCall(call string, err error) error {
	var s *os.SyscallError
	if errors.As(err, &s) {
		s.Syscall = call
	}
	return err
}

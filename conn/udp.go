// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

var (
	_ net.Conn       = (*UDPConn)(nil)
	_ net.PacketConn = (*UDPConn)(nil)
	_ syscall.Conn   = (*UDPConn)(nil)
)

// A UDPConn is a net.UDPConn that knows the metadata of the datagrams that it
// receives, and gives metadata to those that it sends. It has all methods of
// net.UDPConn, and they do what they do there.
//
// Multiple goroutines may call its methods at the same time.
type UDPConn struct {
	// Each read looks at these, which share a cache line.

	udp *net.UDPConn
	// carrier brings the records of datagrams; room is what it says, once.
	carrier static
	room    int
	// wantCmsg is set by SetMetadataMessage.
	wantCmsg atomic.Bool
	gro      groState

	sock socket
	// tx is nil until metadata is sent.
	tx atomic.Pointer[transmitter]
	// peer is the remote address where net takes a connected socket for one
	// that is not, nil where that is not known.
	peer atomic.Pointer[netip.AddrPort]
	// detached is what becomes of reading once the programs have gone.
	detached detached
	// batch is what ReadBatch and its like need.
	batch batchState

	// What ReadMetadata returns, made here so that it allocates nothing when
	// metadata is lost, which happens under load.
	errNotSupported, errNoMetadata, errOverrun error
}

// NewUDPConn wraps c, which must not be used by itself any more, and opts it in
// to metadata where that has not been done (Prepare). What waits in its receive
// buffer then has none.
func NewUDPConn(c *net.UDPConn) *UDPConn { return NewGrantedUDPConn(c, "") }

// NewGrantedUDPConn is NewUDPConn for a process that the receive map has been
// granted to (bpf.Grant); receiveMap is the path where it is pinned. Where it cannot
// be mapped the kernel is asked for each record, and Support().Unmapped says why.
func NewGrantedUDPConn(c *net.UDPConn, receiveMap string) *UDPConn {
	if c == nil {
		return &UDPConn{}
	}
	u := &UDPConn{udp: c, sock: prepareConn(c, true, receiveMap)}
	u.errNotSupported = opError("metadata", c, u.sock.err)
	if u.carrier = (static{u.sock.carrier}); u.sock.err != nil {
		u.carrier = static{none{u.errNotSupported}}
	}
	u.room = u.carrier.room()
	u.errNoMetadata = opError("metadata", c, ErrNoMetadata)
	u.errOverrun = opError("metadata", c, ErrOverrun)
	return u
}

// Support says what the connection can do now, and why not more.
func (c *UDPConn) Support() Support {
	if c == nil {
		return unusable.support()
	}
	return c.sock.support()
}

// noUDPConn says of itself what package net says of zero values: syscall.EINVAL.
var noUDPConn net.UDPConn

// plain returns what c wraps, noUDPConn where c is nil or a zero value.
func (c *UDPConn) plain() *net.UDPConn {
	if c == nil || c.udp == nil {
		return &noUDPConn
	}
	return c.udp
}

// ok says whether c is a connection.
func (c *UDPConn) ok() bool { return c.plain().LocalAddr() != nil }

// NetConn returns the connection that c wraps. Reading from it directly returns
// what SyscallConn's documentation says.
func (c *UDPConn) NetConn() net.Conn { return c.plain() }

// Close closes the connection.
func (c *UDPConn) Close() error { return c.plain().Close() }

// LocalAddr returns the local address, a *net.UDPAddr.
func (c *UDPConn) LocalAddr() net.Addr { return c.plain().LocalAddr() }

// RemoteAddr returns the remote address, a *net.UDPAddr, or nil where the
// connection has none.
func (c *UDPConn) RemoteAddr() net.Addr { return c.plain().RemoteAddr() }

// SetDeadline sets the deadlines of net.UDPConn.SetDeadline.
func (c *UDPConn) SetDeadline(t time.Time) error { return c.plain().SetDeadline(t) }

// SetReadDeadline sets the deadline of reads.
func (c *UDPConn) SetReadDeadline(t time.Time) error { return c.plain().SetReadDeadline(t) }

// SetWriteDeadline sets the deadline of writes.
func (c *UDPConn) SetWriteDeadline(t time.Time) error { return c.plain().SetWriteDeadline(t) }

// SetReadBuffer sets the size in bytes of the socket's receive buffer
// (SO_RCVBUF). With a larger one more datagrams wait, and the receive map should
// have more slots (bpf.Options.SlotsPerCPU).
func (c *UDPConn) SetReadBuffer(bytes int) error { return c.plain().SetReadBuffer(bytes) }

// SetWriteBuffer sets the size in bytes of the socket's transmit buffer.
func (c *UDPConn) SetWriteBuffer(bytes int) error { return c.plain().SetWriteBuffer(bytes) }

// SyscallConn returns the raw connection. Control messages that are read
// through it include sockmeta's own: {SOL_SOCKET, SCM_TIMESTAMPING} with a first
// time that has bit 62 set in nanoseconds. Socket options set through it have
// their usual effect, SO_TIMESTAMPING included.
func (c *UDPConn) SyscallConn() (syscall.RawConn, error) { return c.plain().SyscallConn() }

// File returns a duplicate of the file descriptor, see net.UDPConn.File. What
// SyscallConn's documentation says holds for it, too.
func (c *UDPConn) File() (*os.File, error) {
	// net's may panic.
	if !c.ok() {
		return nil, syscall.EINVAL
	}
	return c.plain().File()
}

// Write sends a datagram to the remote address.
func (c *UDPConn) Write(b []byte) (int, error) { return c.plain().Write(b) }

// WriteTo sends a datagram to addr, a *net.UDPAddr.
func (c *UDPConn) WriteTo(b []byte, addr net.Addr) (int, error) { return c.plain().WriteTo(b, addr) }

// WriteToUDP sends a datagram to addr.
func (c *UDPConn) WriteToUDP(b []byte, addr *net.UDPAddr) (int, error) {
	return c.plain().WriteToUDP(b, addr)
}

// WriteToUDPAddrPort sends a datagram to addr.
func (c *UDPConn) WriteToUDPAddrPort(b []byte, addr netip.AddrPort) (int, error) {
	return c.plain().WriteToUDPAddrPort(b, addr)
}

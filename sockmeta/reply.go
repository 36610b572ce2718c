// SPDX-License-Identifier: Apache-2.0

package sockmeta

import (
	"fmt"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sockmeta/sockmeta-go/cmsg"
)

var (
	_ net.PacketConn = (*ReplyConn)(nil)
	_ syscall.Conn   = (*ReplyConn)(nil)
)

// A ReplyConn is a UDP socket for servers that know no more of it than
// net.PacketConn's ReadFrom and WriteTo, as most DNS servers do:
//
//   - The addresses that ReadFrom returns know the metadata of their datagram, and
//     FromAddr tells it, however much later.
//   - WriteTo to such an address sends from the address that the datagram was sent
//     to, also where the socket is bound to all addresses of the host, and through
//     the same interface where the address is link-local. To others it sends as
//     UDPConn.WriteTo.
//
// The addresses are real *net.UDPAddrs. What they know lies behind their IP, in the
// capacity of that slice: it follows a copy of the address and slices of the IP, and
// costs about 450 bytes as long as any of them is kept. An address made anew from the
// text or the bytes knows nothing.
//
// Multiple goroutines may call its methods at the same time. It needs Linux: what
// UDPConn needs for the metadata, and nothing for the source address.
type ReplyConn struct {
	c  *UDPConn
	id uint64
}

// isConn tells a connection from nil and from a zero value, which has no address.
func isConn(c *UDPConn) bool { return c.LocalAddr() != nil }

// replyConns numbers the ReplyConns of this process.
var replyConns atomic.Uint64

// NewReplyConn returns a ReplyConn on c, from which nothing else may read any more.
// Where c is bound to all addresses of the host it sets IP_PKTINFO and
// IPV6_RECVPKTINFO, and the error is that of setsockopt. On other systems than Linux
// it is ErrNotSupported.
func NewReplyConn(c *UDPConn) (*ReplyConn, error) {
	if !isConn(c) {
		return nil, syscall.EINVAL
	}
	if err := receivePacketInfo(c); err != nil {
		local := c.LocalAddr()
		return nil, &net.OpError{Op: "set", Net: local.Network(), Source: local, Addr: c.RemoteAddr(), Err: err}
	}
	return &ReplyConn{c: c, id: replyConns.Add(1)}, nil
}

// FromAddr returns the metadata of the datagram that came with addr, an address
// from ReplyConn.ReadFrom or a copy of it. The error is ErrNoMetadata where the
// address is another, and else that of ReadMetadata for the datagram: ErrNoMetadata,
// ErrOverrun or ErrNotSupported.
func FromAddr(addr net.Addr) (Metadata, error) {
	var md Metadata
	u, ok := addr.(*net.UDPAddr)
	if !ok || u == nil {
		return md, fmt.Errorf("%w: a %T is no address of a ReplyConn", ErrNoMetadata, addr)
	}
	q, ok := questionOf(u)
	if !ok {
		return md, fmt.Errorf("%w: not an address of a ReplyConn", ErrNoMetadata)
	}
	if err := q.state.err(); err != nil {
		return md, fmt.Errorf("metadata from %s: %w", u, err)
	}
	return md, md.Decode(q.record)
}

// ReadFrom reads a datagram and returns its source, a *net.UDPAddr for WriteTo and
// FromAddr. It allocates that, 448 bytes, and nothing else. Its errors are those of
// UDPConn.ReadFrom.
func (c *ReplyConn) ReadFrom(b []byte) (int, net.Addr, error) {
	if !isConn(c.UDPConn()) {
		return 0, nil, syscall.EINVAL
	}
	batch := takeBatch(1)
	defer batch.release()
	m := &batch.ms[0]
	m.Buf, m.OOB = b, batch.oob[:]
	if _, err := c.c.ReadBatchMetadata(batch.ms, 0); err != nil {
		return 0, nil, asRead(c.c, "recvfrom", err)
	}
	q := question{conn: c.id, state: stateOf(m.Err)}
	it := cmsg.Parse(batch.oob[:m.NN])
	for msg, ok := it.Next(); ok; msg, ok = it.Next() {
		q.sentTo(msg)
	}
	if m.Err == nil {
		var record [maxRecord]byte
		q.record, _ = m.Metadata.AppendBinary(record[:0])
	}
	return m.N, q.addr(m.Addr), nil
}

// WriteTo sends a datagram to addr, a *net.UDPAddr.
func (c *ReplyConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	if !isConn(c.UDPConn()) {
		return 0, syscall.EINVAL
	}
	if u, ok := addr.(*net.UDPAddr); ok && u != nil {
		if q, ok := questionOf(u); ok && q.conn == c.id && q.local.IsValid() {
			var oob [packetInfoSpace]byte
			n, _, err := c.c.WriteMsgUDP(b, q.appendSource(oob[:0]), u)
			return n, err
		}
	}
	return c.c.WriteTo(b, addr)
}

// UDPConn returns the connection that c was made of.
func (c *ReplyConn) UDPConn() *UDPConn {
	if c == nil {
		return nil
	}
	return c.c
}

// Support says what the connection can do now, and why not more.
func (c *ReplyConn) Support() Support { return c.UDPConn().Support() }

// Close closes the connection.
func (c *ReplyConn) Close() error { return c.UDPConn().Close() }

// LocalAddr returns the local address, a *net.UDPAddr.
func (c *ReplyConn) LocalAddr() net.Addr { return c.UDPConn().LocalAddr() }

// SetDeadline sets the deadlines of ReadFrom and WriteTo.
func (c *ReplyConn) SetDeadline(t time.Time) error { return c.UDPConn().SetDeadline(t) }

// SetReadDeadline sets the deadline of ReadFrom.
func (c *ReplyConn) SetReadDeadline(t time.Time) error { return c.UDPConn().SetReadDeadline(t) }

// SetWriteDeadline sets the deadline of WriteTo.
func (c *ReplyConn) SetWriteDeadline(t time.Time) error { return c.UDPConn().SetWriteDeadline(t) }

// SetReadBuffer sets the size in bytes of the socket's receive buffer.
func (c *ReplyConn) SetReadBuffer(bytes int) error { return c.UDPConn().SetReadBuffer(bytes) }

// SetWriteBuffer sets the size in bytes of the socket's transmit buffer.
func (c *ReplyConn) SetWriteBuffer(bytes int) error { return c.UDPConn().SetWriteBuffer(bytes) }

// SyscallConn returns the raw connection, see UDPConn.SyscallConn.
func (c *ReplyConn) SyscallConn() (syscall.RawConn, error) { return c.UDPConn().SyscallConn() }

// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/abi"
)

var (
	_ net.Conn      = (*TCPConn)(nil)
	_ syscall.Conn  = (*TCPConn)(nil)
	_ io.ReaderFrom = (*TCPConn)(nil)
	_ io.WriterTo   = (*TCPConn)(nil)
)

// A TCPConn is a net.TCPConn that knows the metadata of the segments that it
// receives, and gives metadata to those that it sends. It has all methods of
// net.TCPConn, and they do what they do there; reading and writing cost nothing
// more.
//
// Multiple goroutines may call its methods at the same time.
type TCPConn struct {
	// A copy of *tcp, which has the same descriptor.
	tcpConn
	tcp  *net.TCPConn
	sock socket
}

// tcpConn is embedded for what package net asks of its own types alone, by unexported
// methods: net.Buffers writes to it by writev(2).
type tcpConn = net.TCPConn

// NewTCPConn wraps c, which must not be used by itself any more, and opts it in
// to metadata where that has not been done (Prepare). A connection that is open
// already has no OpeningMetadata then.
func NewTCPConn(c *net.TCPConn) *TCPConn {
	if c == nil {
		return &TCPConn{}
	}
	return &TCPConn{tcpConn: *c, tcp: c, sock: prepareConn(c, false, "")}
}

// Support says what the connection can do now, and why not more.
func (c *TCPConn) Support() Support {
	if c == nil {
		return unusable.support()
	}
	return c.sock.support()
}

// noTCPConn says of itself what package net says of zero values: syscall.EINVAL.
var noTCPConn net.TCPConn

// plain returns what c wraps, noTCPConn where c is nil or a zero value.
func (c *TCPConn) plain() *net.TCPConn {
	if c == nil || c.tcp == nil {
		return &noTCPConn
	}
	return c.tcp
}

// ok says whether c is a connection.
func (c *TCPConn) ok() bool { return c.plain().LocalAddr() != nil }

// Metadata returns the metadata of the bytes that the last Read returned: of
// the segment that brought the last of them. It stays until the next Read, and
// is that of the last bytes also when Read has returned io.EOF.
//
// The kernel filters a segment before TCP decides whether to take it, so the
// programs log each segment with the bytes that were new when it came. A byte came
// with the one segment in the log that has it. If several have it, which takes a
// retransmission of what waits out of order or a spoofed segment, the record is of
// the most likely one and has cmsg.FlagUnproven and cmsg.FlagRepeated. A record
// with cmsg.FlagAggregate stands for segments that GRO merged.
//
// The newest 16 segments that wait unread are logged at the socket, up to 8192 more
// in receive slots (bpf.Options.SlotsPerCPU), which newer packets may take from them,
// and so may other connections if more than 256 have more than 16.
// What is lost so is ErrOverrun.
// The error is ErrNoMetadata if nothing has been read, and for bytes that came
// before the connection opted in. What was in the receive window then is unproven.
//
// Metadata does not block and knows no deadlines. With several readers, "the
// last" is the last of any of them.
//
// Sources: tcp_filter in net/ipv4/tcp_ipv4.c runs before tcp_rcv_established and
// tcp_data_queue in net/ipv4/tcp_input.c decide.
func (c *TCPConn) Metadata() (cmsg.Metadata, error) { return c.record(abi.OptTCPRead) }

// OpeningMetadata returns the metadata of the segment that opened the
// connection: the peer's SYN, or, if this side dialed, its SYN-ACK
// (cmsg.FlagSynAck). If the SYN's record was lost, because the host answered
// with SYN cookies or was opening very many connections, it is that of the
// segment that completed the handshake (cmsg.FlagHandshakeAck). If several SYNs may
// have opened it, retransmitted ones among them, the record has cmsg.FlagUnproven
// and cmsg.FlagRepeated. A SYN that the host answered with a cookie has
// cmsg.FlagUnproven: the kernel keeps nothing that shows whether it was the only one.
func (c *TCPConn) OpeningMetadata() (cmsg.Metadata, error) { return c.record(abi.OptTCPOpening) }

// LatestMetadata returns the metadata of the newest segment that has arrived,
// whether it brought data or not, and whether that has been read or not. It has
// cmsg.FlagUnproven unless the segment's bytes, or its FIN, were taken for certain:
// nothing shows what became of an acknowledgement alone. A segment that TCP ought to
// drop is never the newest.
func (c *TCPConn) LatestMetadata() (cmsg.Metadata, error) { return c.record(abi.OptTCPLatest) }

func (c *TCPConn) record(opt int) (md cmsg.Metadata, err error) {
	if !c.ok() {
		return md, syscall.EINVAL
	}
	if c.sock.err != nil {
		return md, opError("metadata", c.tcp, c.sock.err)
	}
	q := queries.Get().(*query)
	defer queries.Put(q)
	q.opt = opt
	err = c.sock.raw.Control(q.askTCP)
	if err == nil {
		err = q.err
	}
	if err == ErrNotSupported {
		err = c.sock.lost()
	}
	if err != nil {
		return md, opError("metadata", c.tcp, err)
	}
	return q.md, nil
}

// Bare returns a TCPConn that asks for c's metadata alone. c has opted in before, by its
// listener or by Prepare, and is used by itself as before. Else the error of each call is
// ErrNotSupported.
func Bare(c *net.TCPConn) *TCPConn {
	if c == nil {
		return &TCPConn{}
	}
	t := &TCPConn{tcpConn: *c, tcp: c}
	if t.sock.raw, t.sock.err = c.SyscallConn(); t.sock.err == nil {
		t.sock.err = t.sock.findInstance()
	}
	return t
}

// SetMetadata gives all that the connection sends from now on metadata, which the
// programs on its way through this host read (bpf/include/sockmeta_tx.h): every
// packet, retransmitted ones, those without payload and those that wait in the
// send buffer now among them. The mark and the priority in it are applied as far
// as the policy allows (bpf.Policy). nil, or what is empty, takes it away.
//
// md is the caller's again when SetMetadata returns. Where the error is
// ErrRefused, the rest of the metadata is in force; after others what was set
// before is. It makes one system call, and a second one to know what the policy
// refuses; needs no privilege. Dialer.Metadata of package sockmeta sets it before
// the connection is opened.
func (c *TCPConn) SetMetadata(md *cmsg.Metadata) error {
	if !c.ok() {
		return syscall.EINVAL
	}
	err := c.sock.err
	if err == nil {
		if err = setMetadata(c.sock.raw, md); err == ErrNotSupported {
			err = c.sock.lost()
		}
	}
	return opError("metadata", c.tcp, err)
}

// PrepareMetadata is TCPConn.SetMetadata for a socket that is not connected yet
// and that Prepare has opted in, for the Control functions of net.Dialer.
func PrepareMetadata(rc syscall.RawConn, md *cmsg.Metadata) error { return setMetadata(rc, md) }

func setMetadata(rc syscall.RawConn, md *cmsg.Metadata) (err error) {
	if rc == nil {
		return syscall.EINVAL
	}
	var record []byte
	if md != nil && !md.IsEmpty() {
		if err := md.Err(); err != nil {
			return err
		}
		record, _ = md.MarshalBinary()
	}
	var info abi.TxInfo
	cerr := rc.Control(func(fd uintptr) {
		if err = bpf.SetSocketRecord(int(fd), record); err == nil && record != nil {
			info, err = bpf.SocketTxInfo(int(fd))
		}
	})
	if cerr != nil {
		return cerr
	}
	if err != nil || record == nil {
		return err
	}
	if fields := refused(&info, md, false); fields != 0 {
		return &refusedError{fields}
	}
	return nil
}

// NetConn returns the connection that c wraps.
func (c *TCPConn) NetConn() net.Conn { return c.plain() }

// Read reads from the connection.
func (c *TCPConn) Read(b []byte) (int, error) { return c.plain().Read(b) }

// Write writes to the connection.
func (c *TCPConn) Write(b []byte) (int, error) { return c.plain().Write(b) }

// ReadFrom copies from r to the connection, by splice or sendfile where
// net.TCPConn does; from another TCPConn, too.
func (c *TCPConn) ReadFrom(r io.Reader) (int64, error) {
	switch r := r.(type) {
	case *TCPConn:
		return c.plain().ReadFrom(r.plain())
	case *io.LimitedReader:
		if inner, ok := r.R.(*TCPConn); ok {
			plain := &io.LimitedReader{R: inner.plain(), N: r.N}
			n, err := c.plain().ReadFrom(plain)
			r.N = plain.N
			return n, err
		}
	}
	return c.plain().ReadFrom(r)
}

// WriteTo copies from the connection to w, by splice where net.TCPConn does; to
// another TCPConn, too.
func (c *TCPConn) WriteTo(w io.Writer) (int64, error) {
	if t, ok := w.(*TCPConn); ok {
		return c.plain().WriteTo(t.plain())
	}
	return c.plain().WriteTo(w)
}

// Close closes the connection.
func (c *TCPConn) Close() error { return c.plain().Close() }

// CloseRead shuts down the reading side.
func (c *TCPConn) CloseRead() error { return c.plain().CloseRead() }

// CloseWrite shuts down the writing side.
func (c *TCPConn) CloseWrite() error { return c.plain().CloseWrite() }

// LocalAddr returns the local address, a *net.TCPAddr.
func (c *TCPConn) LocalAddr() net.Addr { return c.plain().LocalAddr() }

// RemoteAddr returns the remote address, a *net.TCPAddr.
func (c *TCPConn) RemoteAddr() net.Addr { return c.plain().RemoteAddr() }

// SetDeadline sets the deadlines of reads and writes.
func (c *TCPConn) SetDeadline(t time.Time) error { return c.plain().SetDeadline(t) }

// SetReadDeadline sets the deadline of reads.
func (c *TCPConn) SetReadDeadline(t time.Time) error { return c.plain().SetReadDeadline(t) }

// SetWriteDeadline sets the deadline of writes.
func (c *TCPConn) SetWriteDeadline(t time.Time) error { return c.plain().SetWriteDeadline(t) }

// SetReadBuffer sets the size in bytes of the socket's receive buffer.
func (c *TCPConn) SetReadBuffer(bytes int) error { return c.plain().SetReadBuffer(bytes) }

// SetWriteBuffer sets the size in bytes of the socket's transmit buffer.
func (c *TCPConn) SetWriteBuffer(bytes int) error { return c.plain().SetWriteBuffer(bytes) }

// SetLinger sets SO_LINGER, see net.TCPConn.
func (c *TCPConn) SetLinger(sec int) error { return c.plain().SetLinger(sec) }

// SetNoDelay sets TCP_NODELAY, see net.TCPConn.
func (c *TCPConn) SetNoDelay(noDelay bool) error { return c.plain().SetNoDelay(noDelay) }

// SetKeepAlive sets SO_KEEPALIVE.
func (c *TCPConn) SetKeepAlive(keepalive bool) error { return c.plain().SetKeepAlive(keepalive) }

// SetKeepAlivePeriod sets the time between keep-alive probes.
func (c *TCPConn) SetKeepAlivePeriod(d time.Duration) error { return c.plain().SetKeepAlivePeriod(d) }

// SetKeepAliveConfig sets the keep-alive options.
func (c *TCPConn) SetKeepAliveConfig(config net.KeepAliveConfig) error {
	return c.plain().SetKeepAliveConfig(config)
}

// MultipathTCP reports whether the connection uses Multipath TCP, see
// net.TCPConn.
func (c *TCPConn) MultipathTCP() (bool, error) { return c.plain().MultipathTCP() }

// SyscallConn returns the raw connection.
func (c *TCPConn) SyscallConn() (syscall.RawConn, error) { return c.plain().SyscallConn() }

// File returns a duplicate of the file descriptor, see net.TCPConn.File.
func (c *TCPConn) File() (*os.File, error) {
	// net's may panic.
	if !c.ok() {
		return nil, syscall.EINVAL
	}
	return c.plain().File()
}

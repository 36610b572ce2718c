// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"net"
	"os"
	"syscall"
	"time"
)

var (
	_ net.Listener = (*TCPListener)(nil)
	_ syscall.Conn = (*TCPListener)(nil)
)

// A TCPListener is a net.TCPListener whose connections are *TCPConn. It has all
// methods of net.TCPListener.
//
// Multiple goroutines may call its methods at the same time.
type TCPListener struct {
	tcp  *net.TCPListener
	sock socket
}

// NewTCPListener wraps l, which must not be used by itself any more, and opts it
// in to metadata where that has not been done (Prepare). A listener for
// Multipath TCP cannot opt in.
func NewTCPListener(l *net.TCPListener) *TCPListener {
	if l == nil {
		return &TCPListener{}
	}
	return &TCPListener{tcp: l, sock: prepareConn(l, false, "")}
}

// Support says what the listener's connections can do now, and why not more.
func (l *TCPListener) Support() Support {
	if l == nil {
		return unusable.support()
	}
	return l.sock.support()
}

// noTCPListener says of itself what package net says of zero values: syscall.EINVAL.
var noTCPListener net.TCPListener

// plain returns what l wraps, noTCPListener where l is nil or a zero value.
func (l *TCPListener) plain() *net.TCPListener {
	if l == nil || l.tcp == nil {
		return &noTCPListener
	}
	return l.tcp
}

// ok says whether l is a listener.
func (l *TCPListener) ok() bool { return l != nil && l.tcp != nil && l.sock.raw != nil }

// Accept waits for the next connection and returns it, a *TCPConn.
func (l *TCPListener) Accept() (net.Conn, error) {
	c, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	return c, nil
}

// AcceptTCP waits for the next connection and returns it. The connection has
// opted in as the listener has, from its first segment on.
func (l *TCPListener) AcceptTCP() (*TCPConn, error) {
	c, err := l.plain().AcceptTCP()
	if err != nil {
		return nil, err
	}
	t := &TCPConn{tcpConn: *c, tcp: c, sock: l.sock}
	if t.sock.raw, err = c.SyscallConn(); err != nil {
		t.sock.err = err
	}
	return t, nil
}

// Addr returns the listener's address, a *net.TCPAddr.
func (l *TCPListener) Addr() net.Addr {
	// net's would panic.
	if !l.ok() {
		return nil
	}
	return l.tcp.Addr()
}

// Close stops listening. Connections that were accepted stay open.
func (l *TCPListener) Close() error { return l.plain().Close() }

// SetDeadline sets the deadline of Accept.
func (l *TCPListener) SetDeadline(t time.Time) error { return l.plain().SetDeadline(t) }

// File returns a duplicate of the file descriptor, see net.TCPListener.File.
func (l *TCPListener) File() (*os.File, error) {
	// net's may panic.
	if !l.ok() {
		return nil, syscall.EINVAL
	}
	return l.plain().File()
}

// SyscallConn returns the raw connection.
func (l *TCPListener) SyscallConn() (syscall.RawConn, error) { return l.plain().SyscallConn() }

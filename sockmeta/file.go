// SPDX-License-Identifier: Apache-2.0

package sockmeta

import (
	"net"
	"os"

	"github.com/sockmeta/sockmeta-go/conn"
)

// FileConn is net.FileConn. TCP and UDP sockets are a *TCPConn and a *UDPConn, which opt
// in now; others have no metadata and are those of package net. So a process takes over
// the sockets that another one passes on.
func FileConn(f *os.File) (net.Conn, error) {
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	switch c := c.(type) {
	case *net.TCPConn:
		return conn.NewTCPConn(c), nil
	case *net.UDPConn:
		return conn.NewUDPConn(c), nil
	}
	return c, nil
}

// FilePacketConn is net.FilePacketConn. UDP sockets are a *UDPConn, which opts in now.
func FilePacketConn(f *os.File) (net.PacketConn, error) {
	c, err := net.FilePacketConn(f)
	if err != nil {
		return nil, err
	}
	if u, ok := c.(*net.UDPConn); ok {
		return conn.NewUDPConn(u), nil
	}
	return c, nil
}

// FileListener is net.FileListener. TCP listeners are a *TCPListener, which opts in now.
func FileListener(f *os.File) (net.Listener, error) {
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	if t, ok := l.(*net.TCPListener); ok {
		return conn.NewTCPListener(t), nil
	}
	return l, nil
}

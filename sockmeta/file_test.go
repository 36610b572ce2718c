// SPDX-License-Identifier: Apache-2.0

package sockmeta

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

var anyLoopback = netip.MustParseAddrPort("127.0.0.1:0")

// TestFiles takes over sockets by their descriptors.
func TestFiles(t *testing.T) {
	var lc ListenConfig
	u, err := lc.ListenUDP(t.Context(), "udp", anyLoopback)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	l, err := lc.ListenTCP(t.Context(), "tcp", anyLoopback)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()

	file := func(s interface{ File() (*os.File, error) }) *os.File {
		t.Helper()
		f, err := s.File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	if got, err := FilePacketConn(file(u)); err != nil {
		t.Error(err)
	} else if w, ok := got.(*UDPConn); !ok || w.LocalAddr().String() != u.LocalAddr().String() {
		t.Errorf("packet connection is %T", got)
	} else {
		defer w.Close()
	}
	if got, err := FileConn(file(u)); err != nil {
		t.Error(err)
	} else if w, ok := got.(*UDPConn); !ok {
		t.Errorf("connection of a UDP socket is %T", got)
	} else {
		defer w.Close()
	}
	if got, err := FileListener(file(l)); err != nil {
		t.Error(err)
	} else if w, ok := got.(*TCPListener); !ok || w.Addr().String() != l.Addr().String() {
		t.Errorf("listener is %T", got)
	} else {
		defer w.Close()
	}
	if got, err := FileConn(file(c.(*net.TCPConn))); err != nil {
		t.Error(err)
	} else if w, ok := got.(*TCPConn); !ok {
		t.Errorf("connection of a TCP socket is %T", got)
	} else {
		defer w.Close()
	}

	local, err := net.Listen("unix", filepath.Join(t.TempDir(), "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	if got, err := FileListener(file(local.(*net.UnixListener))); err != nil {
		t.Error(err)
	} else if _, ok := got.(*net.UnixListener); !ok {
		t.Errorf("listener of a Unix socket is %T", got)
	} else {
		defer got.Close()
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if got, err := FileConn(null); err == nil {
		t.Errorf("%T of a file", got)
	}
}

// TestListenConfigNetworks refuses networks of other kinds, as package net does.
func TestListenConfigNetworks(t *testing.T) {
	var lc ListenConfig
	var unknown net.UnknownNetworkError
	if c, err := lc.ListenUDP(t.Context(), "tcp", anyLoopback); !errors.As(err, &unknown) {
		t.Errorf("%v, %v", c, err)
	}
	if l, err := lc.ListenTCP(t.Context(), "udp4", anyLoopback); !errors.As(err, &unknown) {
		t.Errorf("%v, %v", l, err)
	}
	c, err := lc.ListenUDP(t.Context(), "udp4", netip.AddrPort{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if a := c.LocalAddr().(*net.UDPAddr); !a.IP.IsUnspecified() || a.Port == 0 {
		t.Errorf("address is %v", a)
	}
}

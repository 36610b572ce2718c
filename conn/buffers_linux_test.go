// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"fmt"
	"io"
	"net"
	"os"
	"testing"
)

// TestBuffers has net.Buffers write to our connections by as few system calls as to
// those of package net.
func TestBuffers(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	calls := make(map[string]int)
	for name, wrap := range map[string]func(*net.TCPConn) net.Conn{
		"net":      func(c *net.TCPConn) net.Conn { return c },
		"sockmeta": func(c *net.TCPConn) net.Conn { return NewTCPConn(c) },
	} {
		dialed, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c := wrap(dialed.(*net.TCPConn))
		defer c.Close()
		peer, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer peer.Close()
		var bufs net.Buffers
		want := ""
		for i := range 64 {
			s := fmt.Sprintf("%d,", i)
			bufs, want = append(bufs, []byte(s)), want+s
		}
		before := writeCalls(t)
		if n, err := bufs.WriteTo(c); err != nil || n != int64(len(want)) {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
		calls[name] = writeCalls(t) - before
		got := make([]byte, len(want))
		if _, err := io.ReadFull(peer, got); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if calls["sockmeta"] > calls["net"]+1 {
		t.Errorf("%d system calls, package net needs %d", calls["sockmeta"], calls["net"])
	}
	if n, err := (&net.Buffers{[]byte("x")}).WriteTo(&TCPConn{}); n != 0 || err == nil {
		t.Errorf("a zero connection took %d bytes, %v", n, err)
	}
}

// writeCalls returns how often this process has called write(2) and its like (syscw,
// Documentation/filesystems/proc.rst).
func writeCalls(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Skip(err)
	}
	var read, written, reads, writes int
	if _, err := fmt.Sscanf(string(b), "rchar: %d\nwchar: %d\nsyscr: %d\nsyscw: %d", &read, &written, &reads, &writes); err != nil {
		t.Fatalf("%v in %q", err, b)
	}
	return writes
}

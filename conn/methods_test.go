// SPDX-License-Identifier: Apache-2.0

package conn_test

import (
	"io"
	"net"
	"os"
	"reflect"
	"syscall"
	"testing"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"github.com/sockmeta/sockmeta-go/conn"
)

// TestMethodSets holds the wrappers to having each method of what they wrap,
// with the same signature: code that was written for one works with the other.
func TestMethodSets(t *testing.T) {
	for _, tt := range []struct {
		plain, wrapped any
		// differ are methods whose signatures cannot be the same.
		differ map[string]any
	}{
		{plain: (*net.UDPConn)(nil), wrapped: (*conn.UDPConn)(nil)},
		{plain: (*net.TCPConn)(nil), wrapped: (*conn.TCPConn)(nil)},
		{plain: (*net.TCPListener)(nil), wrapped: (*conn.TCPListener)(nil), differ: map[string]any{
			"AcceptTCP": (func() (*conn.TCPConn, error))(nil),
		}},
	} {
		plain, wrapped := reflect.TypeOf(tt.plain), reflect.TypeOf(tt.wrapped)
		for m := range plain.Methods() {
			got, ok := wrapped.MethodByName(m.Name)
			if !ok {
				t.Errorf("%v has no method %s", wrapped, m.Name)
				continue
			}
			want := signature(m.Type)
			if other, ok := tt.differ[m.Name]; ok {
				want = reflect.TypeOf(other)
			}
			if s := signature(got.Type); s != want {
				t.Errorf("%v.%s is %v, want %v", wrapped, m.Name, s, want)
			}
		}
		for name := range tt.differ {
			if _, ok := plain.MethodByName(name); !ok {
				t.Errorf("%v.%s is listed as different, but there is none", plain, name)
			}
		}
	}
}

// signature returns a method's type without its receiver.
func signature(method reflect.Type) reflect.Type {
	var in, out []reflect.Type
	for p := range method.Ins() {
		in = append(in, p)
	}
	for p := range method.Outs() {
		out = append(out, p)
	}
	return reflect.FuncOf(in[1:], out, method.IsVariadic())
}

// TestInterfaces has the interfaces that libraries look for in a connection
// that they are handed.
func TestInterfaces(t *testing.T) {
	type file interface{ File() (*os.File, error) }
	type buffers interface {
		SetReadBuffer(int) error
		SetWriteBuffer(int) error
	}
	// What golang.org/x/net and QUIC implementations ask of packet conns.
	type oobConn interface {
		net.PacketConn
		syscall.Conn
		buffers
		ReadMsgUDP(b, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error)
		WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error)
	}
	// What QUIC implementations look for, to read many packets at once.
	type batchConn interface {
		ReadBatch(ms []ipv4.Message, flags int) (int, error)
		WriteBatch(ms []ipv6.Message, flags int) (int, error)
	}
	// What proxies ask of streams.
	type halfCloser interface {
		CloseRead() error
		CloseWrite() error
	}
	type stream interface {
		net.Conn
		io.ReaderFrom
		io.WriterTo
		syscall.Conn
		halfCloser
		buffers
		file
	}
	// How crypto/tls and others get at the connection below.
	type wrapper interface{ NetConn() net.Conn }

	for _, tt := range []struct {
		name string
		ok   bool
	}{
		{"UDPConn is a net.Conn", is[net.Conn](&conn.UDPConn{})},
		{"UDPConn is an oobConn", is[oobConn](&conn.UDPConn{})},
		{"UDPConn is a batchConn", is[batchConn](&conn.UDPConn{})},
		{"UDPConn has a file", is[file](&conn.UDPConn{})},
		{"UDPConn is a wrapper", is[wrapper](&conn.UDPConn{})},
		{"TCPConn is a stream", is[stream](&conn.TCPConn{})},
		{"TCPConn is a wrapper", is[wrapper](&conn.TCPConn{})},
		{"TCPListener is a net.Listener", is[net.Listener](&conn.TCPListener{})},
		{"TCPListener is a syscall.Conn", is[syscall.Conn](&conn.TCPListener{})},
		{"TCPListener has a file", is[file](&conn.TCPListener{})},
	} {
		if !tt.ok {
			t.Errorf("not so: %s", tt.name)
		}
	}
	// io.Copy would take a datagram socket with these for a stream.
	if is[io.ReaderFrom](&conn.UDPConn{}) || is[io.WriterTo](&conn.UDPConn{}) {
		t.Error("UDPConn passes for a stream")
	}
}

func is[I any](v any) bool {
	_, ok := v.(I)
	return ok
}

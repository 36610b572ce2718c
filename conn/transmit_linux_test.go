// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/sockmeta/sockmeta-go/cmsg"
)

var errUnsupported = fmt.Errorf("%w: as the test has it", ErrNotSupported)

// unsupported returns a connection as NewUDPConn makes it where there is no
// metadata.
func unsupported(c *net.UDPConn) *UDPConn {
	err := opError("metadata", c, errUnsupported)
	return &UDPConn{udp: c, sock: socket{err: errUnsupported}, carrier: static{none{err}}, errNotSupported: err}
}

// A senderPair sends to a plain socket, by a socket without a peer, or with.
type senderPair struct {
	*UDPConn
	peer *net.UDPConn
	to   netip.AddrPort // for Write... functions
}

// senders returns a pair of each kind, without metadata.
func senders(t *testing.T) map[string]senderPair {
	t.Helper()
	loopback := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}
	pairs := make(map[string]senderPair)
	for _, kind := range []string{"connected", "unconnected"} {
		peer, err := net.ListenUDP("udp4", loopback)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = peer.Close() })
		addr := peer.LocalAddr().(*net.UDPAddr)
		p := senderPair{peer: peer, to: addr.AddrPort()}
		var c *net.UDPConn
		if kind == "connected" {
			p.to = netip.AddrPort{}
			c, err = net.DialUDP("udp4", nil, addr)
		} else {
			c, err = net.ListenUDP("udp4", loopback)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		p.UDPConn = unsupported(c)
		pairs[kind] = p
	}
	return pairs
}

// wantSent has the peer receive what a function sent that returned n.
func (p senderPair) wantSent(t *testing.T, payload string, n int) {
	t.Helper()
	if n != len(payload) {
		t.Errorf("sent %d bytes, want %d", n, len(payload))
		return
	}
	buf := make([]byte, 100)
	got, err := p.peer.Read(buf)
	if err != nil || string(buf[:got]) != payload {
		t.Errorf("the peer got %q, %v, want %q", buf[:got], err, payload)
	}
}

func serviceMetadata(t *testing.T) *cmsg.Metadata {
	t.Helper()
	md := new(cmsg.Metadata)
	if err := md.SetUint32(cmsg.KeyServiceID, 7); err != nil {
		t.Fatal(err)
	}
	return md
}

// TestWriteMetadata sends without metadata, for want of it or of programs.
func TestWriteMetadata(t *testing.T) {
	service := serviceMetadata(t)
	for kind, p := range senders(t) {
		for _, tt := range []struct {
			name string
			md   *cmsg.Metadata
			want error
		}{
			{"nil", nil, nil},
			{"empty", new(cmsg.Metadata), nil},
			{"service", service, errUnsupported},
			{"service again", service, errUnsupported},
			{"nil again", nil, nil},
		} {
			t.Run(kind+"/"+tt.name, func(t *testing.T) {
				if tt.md == service {
					defer p.wantTransmitter(t, true)
				} else if tt.name != "nil again" {
					defer p.wantTransmitter(t, false)
				}
				n, err := p.WriteMetadata([]byte(tt.name), tt.md, p.to)
				wantMetadataError(t, err, tt.want)
				p.wantSent(t, tt.name, n)
			})
		}
		_ = p.Close()
		for _, md := range []*cmsg.Metadata{nil, service} {
			n, err := p.WriteMetadata([]byte("late"), md, p.to)
			if n != 0 || !errors.Is(err, net.ErrClosed) || IsMetadataError(err) {
				t.Errorf("after Close: %d, %v", n, err)
			}
		}
	}
}

// wantTransmitter says whether the socket has been asked for what metadata needs.
func (p senderPair) wantTransmitter(t *testing.T, want bool) {
	t.Helper()
	if made := p.tx.Load() != nil; made != want {
		t.Errorf("transmitter made: %v, want %v", made, want)
	}
}

// wantMetadataError wants an error that is about metadata, in package net's form.
func wantMetadataError(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) || IsMetadataError(err) != (want != nil) {
		t.Errorf("error is %v, want %v", err, want)
	}
	var op *net.OpError
	if err != nil && (!errors.As(err, &op) || op.Op != "metadata") {
		t.Errorf("%v is no operation's", err)
	}
}

// TestWriteMsgRecord has the payload sent, whatever becomes of the record that
// comes in a control message.
func TestWriteMsgRecord(t *testing.T) {
	record := serviceMetadata(t).AppendCmsg(nil)
	// Long enough for a record of any version.
	malformed := cmsg.Append(nil, cmsg.SOL_BPF, cmsg.SCM_RECORD, make([]byte, 320))
	// To the kernel a control message that nobody asked about is none.
	other := cmsg.Append(nil, cmsg.SOL_BPF, cmsg.SCM_RECORD+1, make([]byte, 4))
	for kind, p := range senders(t) {
		for _, tt := range []struct {
			name string
			oob  []byte
			want error
		}{
			{"no control message", nil, nil},
			{"another control message", other, nil},
			{"record", record, errUnsupported},
			{"record behind another", append(other[:len(other):len(other)], record...), errUnsupported},
			{"malformed record", malformed, cmsg.ErrVersion},
			{"short record", cmsg.Append(nil, cmsg.SOL_BPF, cmsg.SCM_RECORD, []byte{1}), ErrTruncated},
		} {
			t.Run(kind+"/"+tt.name, func(t *testing.T) {
				n, oobn, err := p.WriteMsgUDPAddrPort([]byte(tt.name), tt.oob, p.to)
				wantMetadataError(t, err, tt.want)
				p.wantSent(t, tt.name, n)
				if oobn != len(tt.oob) {
					t.Errorf("%d bytes of control messages, want %d", oobn, len(tt.oob))
				}

				var addr *net.UDPAddr
				if p.to.IsValid() {
					addr = net.UDPAddrFromAddrPort(p.to)
				}
				n, oobn, err = p.WriteMsgUDP([]byte(tt.name), tt.oob, addr)
				wantMetadataError(t, err, tt.want)
				p.wantSent(t, tt.name, n)
				if oobn != len(tt.oob) {
					t.Errorf("%d bytes of control messages, want %d", oobn, len(tt.oob))
				}
			})
		}
	}
}

// TestSetMetadata is of a stream without programs.
func TestSetMetadata(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	stream := &TCPConn{tcp: c.(*net.TCPConn), sock: socket{err: errUnsupported}}
	for _, md := range []*cmsg.Metadata{nil, new(cmsg.Metadata), serviceMetadata(t)} {
		wantMetadataError(t, stream.SetMetadata(md), errUnsupported)
	}
}

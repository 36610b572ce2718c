// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
)

const service = 7

// ask connects to a server of a kind, sends what comes first and a request, and
// returns the answer.
func ask(t *testing.T, kind string, first []byte) byte {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- serve(kind, l, service) }()
	t.Cleanup(func() {
		_ = l.Close()
		if err := <-served; !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(append(first, '?')); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(c)
	if err != nil || len(answer) != 1 {
		t.Fatalf("answer %q, %v", answer, err)
	}
	return answer[0]
}

func header(t *testing.T, tlvs ...proxyproto.TLV) []byte {
	t.Helper()
	h := proxyproto.HeaderProxyFromAddrs(2,
		&net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1000}, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 443})
	if err := h.SetTLVs(tlvs); err != nil {
		t.Fatal(err)
	}
	b, err := h.Format()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func id(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

func TestAnswers(t *testing.T) {
	for _, test := range []struct {
		name, kind string
		first      []byte
		want       byte
	}{
		{"plain", "plain", nil, accepted},
		{"header", "proxy", header(t, proxyproto.TLV{Type: typeService, Value: id(service)}), accepted},
		{"another service", "proxy", header(t, proxyproto.TLV{Type: typeService, Value: id(service + 1)}), refused},
		{"another TLV", "proxy", header(t, proxyproto.TLV{Type: typeService + 1, Value: id(service)}), refused},
		{"no TLV", "proxy", header(t), refused},
		// Nobody has attached a producer to loopback.
		{"no metadata", "sockmeta", nil, refused},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := ask(t, test.kind, test.first); got != test.want {
				t.Errorf("answer %q, want %q", got, test.want)
			}
		})
	}
}

func TestUnknownKind(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := serve("other", l, service); err == nil {
		t.Error("served")
	}
}

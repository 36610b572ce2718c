// SPDX-License-Identifier: Apache-2.0

package sockmeta_test

import (
	"crypto/tls"
	"net"
	"testing"

	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// Wrappers as libraries write them.
type (
	embedding struct{ net.Conn }
	counting  struct {
		bytes int
		net.Conn
	}
	concrete struct{ *tls.Conn }
	named    struct {
		*net.UnixConn // some net.Conn
		inner         net.Conn
	}
	own struct{ net.Conn }
)

func (n named) NetConn() net.Conn { return n.inner }

// NetConn of own is not the connection that it embeds.
func (own) NetConn() net.Conn { return nil }

// selfish wraps itself.
type selfish struct{ net.Conn }

func (s *selfish) NetConn() net.Conn { return s }

// TestFromConnWrapped looks through wrappers of the kinds that there are.
func TestFromConnWrapped(t *testing.T) {
	ours := &sockmeta.TCPConn{}
	deep := net.Conn(ours)
	for range 15 {
		deep = embedding{deep}
	}
	for name, tt := range map[string]struct {
		c    net.Conn
		want bool
	}{
		"embedded":             {embedding{ours}, true},
		"embedded, by pointer": {&counting{1, ours}, true},
		"below TLS, embedded":  {concrete{tls.Server(embedding{ours}, nil)}, true},
		"named":                {named{nil, ours}, true},
		"deep":                 {deep, true},
		"too deep":             {embedding{deep}, false},
		"hidden by NetConn":    {own{ours}, false},
		"itself":               {&selfish{ours}, false},
		"nothing embedded":     {embedding{}, false},
		"nil wrapper":          {(*counting)(nil), false},
		"nil":                  {(*sockmeta.TCPConn)(nil), false},
		"plain":                {embedding{&net.TCPConn{}}, false},
	} {
		got, ok := sockmeta.FromConn(tt.c)
		if ok != tt.want || ok && got != ours {
			t.Errorf("%s: %v, %v", name, got, ok)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// TestTCPPlainConns has a server get connections of package net's own type, and ask for
// their metadata.
func TestTCPPlainConns(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	testutil.EnterCgroup(t)
	lc := sockmeta.ListenConfig{PlainConns: true, Require: true}
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	if _, ok := l.(*net.TCPListener); !ok {
		t.Fatalf("listener is %T", l)
	}
	client, err := net.Dial("tcp", l.Addr().String())
	must(t, err)
	defer client.Close()
	c, err := l.Accept()
	must(t, err)
	defer c.Close()
	if _, ok := c.(*net.TCPConn); !ok {
		t.Fatalf("connection is %T", c)
	}
	if md, err := sockmeta.MetadataOf(c); !errors.Is(err, sockmeta.ErrNoMetadata) {
		t.Errorf("before the first read: %v, %v", &md, err)
	}
	must1(t)(client.Write([]byte("hello")))
	must1(t)(io.ReadFull(c, make([]byte, 5)))
	for name, of := range map[string]func(net.Conn) (sockmeta.Metadata, error){
		"Metadata": sockmeta.MetadataOf, "OpeningMetadata": sockmeta.OpeningMetadataOf, "LatestMetadata": sockmeta.LatestMetadataOf,
	} {
		md, err := of(struct{ net.Conn }{c})
		if iface, ok := md.IfIndex(); err != nil || !ok || iface == 0 {
			t.Errorf("%s: %v, %v", name, &md, err)
		}
	}
	if _, err := sockmeta.MetadataOf(client); !errors.Is(err, sockmeta.ErrNotSupported) {
		t.Errorf("of a connection that has not opted in: %v", err)
	}
	pipe, other := net.Pipe()
	defer pipe.Close()
	defer other.Close()
	if _, err := sockmeta.MetadataOf(pipe); !errors.Is(err, sockmeta.ErrNotSupported) {
		t.Errorf("of a pipe: %v", err)
	}
}

// TestTCPPlainHTTP asks in an HTTP handler.
func TestTCPPlainHTTP(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	testutil.EnterCgroup(t)
	lc := sockmeta.ListenConfig{PlainConns: true, Require: true}
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	type key struct{}
	server := &http.Server{
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, key{}, c) },
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, err := sockmeta.OpeningMetadataOf(r.Context().Value(key{}).(net.Conn)); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
			}
		}),
	}
	go func() { _ = server.Serve(l) }()
	defer server.Close()
	client := http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://" + l.Addr().String())
	must(t, err)
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("%s: %s, %v", resp.Status, body, err)
	}
}

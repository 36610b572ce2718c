// SPDX-License-Identifier: Apache-2.0

package clients

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"testing"
	"time"

	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// dialOurs connects one of our sockets from the server's host.
func (l *lab) dialOurs(ctx context.Context, network, address string) (c net.Conn, err error) {
	err = l.Server.Do(func() error {
		d := sockmeta.Dialer{Require: true}
		c, err = d.DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// TestReverseProxy has net/http's reverse proxy, with our sockets on both of its
// sides, hand on bodies, and streams after an upgrade.
func TestReverseProxy(t *testing.T) {
	l := newLab(t)
	backend := l.listenTCP(address(l.ServerAddr4, portB))
	backendServer := &http.Server{ConnContext: withConn, Handler: http.HandlerFunc(echo)}
	go func() { _ = backendServer.Serve(backend) }()
	defer backendServer.Close()

	target, err := url.Parse("http://" + address(l.ServerAddr4, portB))
	must(t, err)
	found := make(chan uint32, 2)
	transport := &http.Transport{DialContext: l.dialOurs}
	defer transport.CloseIdleConnections()
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			c := r.In.Context().Value(connKey{}).(*sockmeta.TCPConn)
			found <- service(c.OpeningMetadata())
			r.SetURL(target)
		},
		Transport: transport,
	}
	front := l.listenTCP(address(l.ServerAddr4, portA))
	frontServer := &http.Server{ConnContext: withConn, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			t.Error(err)
		}
		proxy.ServeHTTP(w, r)
	})}
	go func() { _ = frontServer.Serve(front) }()
	defer frontServer.Close()

	payload := make([]byte, max(1<<20, testutil.Scale(16<<20)))
	_, _ = rand.Read(payload)

	t.Run("body", func(t *testing.T) {
		client := http.Client{Transport: &http.Transport{DialContext: l.dial}, Timeout: timeout}
		defer client.CloseIdleConnections()
		to := "http://" + address(l.ServerAddr4, portA)
		resp, err := client.Post(to, "application/octet-stream", bytes.NewReader(payload))
		must(t, err)
		defer resp.Body.Close()
		got, err := io.ReadAll(resp.Body)
		must(t, err)
		if !bytes.Equal(got, payload) {
			t.Errorf("%d bytes came back, want the %d that were sent", len(got), len(payload))
		}
		if s := <-found; s != serviceA {
			t.Errorf("service is %d, want %d", s, serviceA)
		}
	})
	t.Run("upgrade", func(t *testing.T) {
		c, err := l.dial(t.Context(), "tcp", address(l.ServerAddr4, portA))
		must(t, err)
		defer c.Close()
		must(t, c.SetDeadline(time.Now().Add(timeout)))
		_, err = io.WriteString(c, "GET / HTTP/1.1\r\nHost: server\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		must(t, err)
		head := make([]byte, 12)
		_, err = io.ReadFull(c, head)
		must(t, err)
		if string(head) != "HTTP/1.1 101" {
			t.Fatalf("answer begins with %q", head)
		}
		if s := <-found; s != serviceA {
			t.Errorf("service is %d, want %d", s, serviceA)
		}
		go func() {
			_, _ = c.Write(payload)
			_ = c.(*net.TCPConn).CloseWrite()
		}()
		got, err := io.ReadAll(c)
		must(t, err)
		if _, body, ok := bytes.Cut(got, []byte("\r\n\r\n")); !ok || !bytes.Equal(body, payload) {
			t.Errorf("%d bytes came back, want the %d that were sent", len(body), len(payload))
		}
	})
}

// echo sends the body back, or what comes after an upgrade. It answers while the body
// still arrives: without full duplex, net/http's server drops what is left of a body
// when the answer begins.
func echo(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "" {
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = io.Copy(w, r.Body)
		return
	}
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer c.Close()
	_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	_, _ = io.Copy(c, rw)
}

// TestCopy has io.Copy move a stream between two of our connections as between
// two of package net: by splice. The stream passes through a proxy in both directions
// and through a server that sends it back, which is three copies; what this process
// reads is what the client gets.
func TestCopy(t *testing.T) {
	l := newLab(t)
	backend := l.listenTCP(address(l.ServerAddr4, portB))
	go func() {
		c, err := backend.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.Copy(c, c)
	}()
	front := l.listenTCP(address(l.ServerAddr4, portA))
	go func() {
		c, err := front.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		up, err := l.dialOurs(context.Background(), "tcp", address(l.ServerAddr4, portB))
		if err != nil {
			return
		}
		defer up.Close()
		go func() {
			_, _ = io.Copy(up, c)
			_ = up.(*sockmeta.TCPConn).CloseWrite()
		}()
		_, _ = io.Copy(c, up)
	}()

	payload := make([]byte, max(1<<20, testutil.Scale(16<<20)))
	_, _ = rand.Read(payload)
	c, err := l.dial(t.Context(), "tcp", address(l.ServerAddr4, portA))
	must(t, err)
	defer c.Close()
	must(t, c.SetDeadline(time.Now().Add(timeout)))
	before := bytesRead(t)
	go func() {
		_, _ = c.Write(payload)
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(c)
	must(t, err)
	if !bytes.Equal(got, payload) {
		t.Errorf("%d bytes came back, want the %d that were sent", len(got), len(payload))
	}
	if n := bytesRead(t) - before; n < len(payload) || n >= 2*len(payload) {
		t.Errorf("the process has read %d bytes, want those of the %d that the client got", n, len(payload))
	}
}

// bytesRead returns how many bytes this process has got by read(2) and its like, to
// which splice(2) does not count (rchar, Documentation/filesystems/proc.rst).
func bytesRead(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Skip(err)
	}
	var n int
	if _, err := fmt.Sscanf(string(b), "rchar: %d", &n); err != nil {
		t.Fatalf("%v in %q", err, b)
	}
	return n
}

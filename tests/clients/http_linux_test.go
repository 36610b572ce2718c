// SPDX-License-Identifier: Apache-2.0

package clients

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"testing"

	"github.com/sockmeta/sockmeta-go/sockmeta"
)

type connKey struct{}

// withConn is http.Server.ConnContext.
func withConn(ctx context.Context, c net.Conn) context.Context {
	t, _ := sockmeta.FromConn(c)
	return context.WithValue(ctx, connKey{}, t)
}

// answer tells the services of the request's last segment and of its SYN.
func answer(w http.ResponseWriter, r *http.Request) {
	c, _ := r.Context().Value(connKey{}).(*sockmeta.TCPConn)
	if c == nil {
		http.Error(w, "no connection", http.StatusInternalServerError)
		return
	}
	fmt.Fprint(w, service(c.Metadata()), " ", service(c.OpeningMetadata()))
}

func bothServices(id uint32) string { return fmt.Sprint(id, " ", id) }

func address(addr netip.Addr, port uint16) string {
	return netip.AddrPortFrom(addr, port).String()
}

func anyAddress(port uint16) string { return ":" + strconv.Itoa(int(port)) }

// get makes a request over a connection of its own.
func get(t *testing.T, transport *http.Transport, url string) string {
	t.Helper()
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport, Timeout: timeout}
	resp, err := client.Get(url)
	must(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s: %s", url, resp.Status, body)
	}
	return string(body)
}

// TestHTTP has net/http's handlers find their connections by way of ConnContext,
// below TLS and with HTTP/2, too.
func TestHTTP(t *testing.T) {
	l := newLab(t)
	serverTLS, clientTLS := certificate(t)
	for _, scheme := range []string{"http", "https"} {
		t.Run(scheme, func(t *testing.T) {
			l := l.in(t)
			srv := &http.Server{Handler: http.HandlerFunc(answer), ConnContext: withConn, TLSConfig: serverTLS.Clone()}
			defer srv.Close()
			for port := range services {
				ln := l.listenTCP(anyAddress(port))
				defer ln.Close()
				go func() {
					if scheme == "https" {
						_ = srv.ServeTLS(ln, "", "")
					} else {
						_ = srv.Serve(ln)
					}
				}()
			}
			for name, addr := range l.addrs() {
				for port, id := range services {
					for _, http2 := range []bool{false, true} {
						if http2 && scheme == "http" {
							continue
						}
						transport := &http.Transport{
							DialContext: l.dial, TLSClientConfig: clientTLS.Clone(), ForceAttemptHTTP2: http2,
						}
						got := get(t, transport, scheme+"://"+address(addr, port))
						if want := bothServices(id); got != want {
							t.Errorf("%s, port %d, HTTP/2 %v: services %q, want %q", name, port, http2, got, want)
						}
					}
				}
			}
		})
	}
}

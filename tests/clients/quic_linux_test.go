// SPDX-License-Identifier: Apache-2.0

package clients

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

const quicProtocol = "sockmeta-test"

// A countingConn sees how quic-go uses the socket below it.
type countingConn struct {
	*sockmeta.PeerConn
	batches, single atomic.Int64 // calls that read
	ect             atomic.Int64 // datagrams that came with an ECN codepoint
	segmented       atomic.Int64 // sends with UDP_SEGMENT
	others          atomic.Int64 // datagrams that are not from peer
	foreign         atomic.Int64 // control messages that nobody asked for

	peer netip.AddrPort // not valid: any
}

var _ quic.OOBCapablePacketConn = (*countingConn)(nil)

func (c *countingConn) ReadBatch(ms []ipv4.Message, flags int) (int, error) {
	c.batches.Add(1)
	n, err := c.PeerConn.ReadBatch(ms, flags)
	for _, m := range ms[:n] {
		from := m.Addr.(*net.UDPAddr).AddrPort()
		if c.peer.IsValid() && netip.AddrPortFrom(from.Addr().Unmap(), from.Port()) != c.peer {
			c.others.Add(1)
		}
		for cm := range cmsg.All(m.OOB[:m.NN]) {
			switch {
			case cm.Level == unix.IPPROTO_IP && cm.Type == unix.IP_TOS && cm.Data[0]&3 != 0,
				cm.Level == unix.IPPROTO_IPV6 && cm.Type == unix.IPV6_TCLASS && cm.Data[0]&3 != 0:
				c.ect.Add(1)
			case cm.Level != unix.IPPROTO_IP && cm.Level != unix.IPPROTO_IPV6:
				c.foreign.Add(1)
			}
		}
	}
	return n, err
}

func (c *countingConn) ReadMsgUDP(b, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error) {
	c.single.Add(1)
	return c.PeerConn.ReadMsgUDP(b, oob)
}

func (c *countingConn) ReadFrom(b []byte) (int, net.Addr, error) {
	c.single.Add(1)
	return c.PeerConn.ReadFrom(b)
}

func (c *countingConn) WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	if _, ok := cmsg.Find(oob, unix.IPPROTO_UDP, unix.UDP_SEGMENT); ok {
		c.segmented.Add(1)
	}
	return c.PeerConn.WriteMsgUDP(b, oob, addr)
}

func newCountingConn(c *sockmeta.UDPConn) *countingConn {
	return &countingConn{PeerConn: sockmeta.NewPeerConn(c, sockmeta.PeerOptions{})}
}

// acceptedKey is the key of the service with which a connection came.
type acceptedKey struct{}

// withMetadata is quic.Transport.ConnContext on a PeerConn.
func withMetadata(pc *sockmeta.PeerConn) func(context.Context, *quic.ClientInfo) (context.Context, error) {
	return func(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
		md, err := pc.LatestMetadata(info.RemoteAddr.(*net.UDPAddr).AddrPort())
		return context.WithValue(ctx, acceptedKey{}, service(md, err)), nil
	}
}

// serveQUIC sends every stream back, behind the services that it found.
func serveQUIC(ln *quic.Listener, pc *sockmeta.PeerConn) {
	for {
		c, err := ln.Accept(context.Background())
		if err != nil {
			return
		}
		go func() {
			for {
				s, err := c.AcceptStream(context.Background())
				if err != nil {
					return
				}
				body, err := io.ReadAll(s)
				if err == nil {
					latest := service(pc.LatestMetadata(c.RemoteAddr().(*net.UDPAddr).AddrPort()))
					_, err = fmt.Fprintf(s, "%d %d\n%s", latest, c.Context().Value(acceptedKey{}), body)
				}
				if err != nil {
					s.CancelWrite(1)
					return
				}
				_ = s.Close()
			}
		}()
	}
}

// exchange sends payload by a stream and returns what comes back.
func exchange(ctx context.Context, c *quic.Conn, payload []byte) ([]byte, error) {
	s, err := c.OpenStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	sent := make(chan error, 1)
	go func() {
		_, err := s.Write(payload)
		sent <- errors.Join(err, s.Close())
	}()
	got, err := io.ReadAll(s)
	return got, errors.Join(err, <-sent)
}

// TestQUIC has quic-go on our sockets, on both sides, in all the ways in which it
// uses a socket.
func TestQUIC(t *testing.T) {
	l := newLab(t)
	t.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	second4, second6 := netip.MustParseAddr("192.0.2.77"), netip.MustParseAddr("2001:db8::77")
	must(t, netlab.AddAddr(l.Server, l.ServerIf, netip.PrefixFrom(second4, 24)))
	must(t, netlab.AddAddr(l.Server, l.ServerIf, netip.PrefixFrom(second6, 64)))
	serverTLS, clientTLS := certificate(t, quicProtocol)

	// What is asked for is not the host's first address: a wildcard socket has to
	// answer from there all the same.
	families := map[string][]netip.Addr{"udp4": {second4}, "udp6": {second6}, "udp": {second4, second6}}
	for network, addrs := range families {
		for _, wildcard := range []bool{true, false} {
			for _, gso := range []bool{true, false} {
				for _, ecn := range []bool{true, false} {
					t.Run(fmt.Sprintf("%s/wildcard=%v/GSO=%v/ECN=%v", network, wildcard, gso, ecn), func(t *testing.T) {
						l := l.in(t)
						t.Setenv("QUIC_GO_DISABLE_GSO", strconv.FormatBool(!gso))
						t.Setenv("QUIC_GO_DISABLE_ECN", strconv.FormatBool(!ecn))
						for _, addr := range addrs {
							for port, id := range services {
								listen := anyAddress(port)
								if !wildcard {
									listen = address(addr, port)
								}
								for _, gro := range []sockmeta.Segments{sockmeta.SegmentsOff, sockmeta.SegmentsSplit} {
									q := quicTest{
										l, network, listen, netip.AddrPortFrom(addr, port),
										serverTLS, clientTLS, id, gso, ecn, gro,
									}
									q.run(t)
								}
							}
						}
					})
				}
			}
		}
	}
}

type quicTest struct {
	lab                  *lab
	network, listen      string
	to                   netip.AddrPort
	serverTLS, clientTLS *tls.Config
	service              uint32
	gso, ecn             bool
	gro                  sockmeta.Segments
}

func (q *quicTest) run(t *testing.T) {
	t.Helper()
	server := newCountingConn(q.lab.listenUDP(q.network, q.listen))
	defer server.Close()
	st := &quic.Transport{Conn: server, ConnContext: withMetadata(server.PeerConn)}
	defer st.Close()
	ln, err := st.Listen(q.serverTLS, nil)
	must(t, err)
	go serveQUIC(ln, server.PeerConn)

	client := newCountingConn(q.lab.clientOurs(q.network))
	client.peer = q.to
	must(t, server.SetGRO(q.gro))
	must(t, client.SetGRO(q.gro))
	ct := &quic.Transport{Conn: client}
	defer ct.Close()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	c, err := ct.Dial(ctx, net.UDPAddrFromAddrPort(q.to), q.clientTLS, nil)
	must(t, err)
	payload := make([]byte, 200<<10)
	_, _ = rand.Read(payload)
	got, err := exchange(ctx, c, payload)
	must(t, err)
	found, body, _ := bytes.Cut(got, []byte("\n"))
	if want := bothServices(q.service); string(found) != want || !bytes.Equal(body, payload) {
		t.Errorf("%s: services %q with %d bytes, want %q and the %d that were sent",
			q.to, found, len(body), want, len(payload))
	}
	if gso := c.ConnectionState().GSO; gso != q.gso {
		t.Errorf("GSO is %v", gso)
	}
	must(t, c.CloseWithError(0, ""))

	for side, c := range map[string]*countingConn{"server": server, "client": client} {
		if c.batches.Load() == 0 || c.single.Load() != 0 {
			t.Errorf("%s: %d reads by ReadBatch, %d others", side, c.batches.Load(), c.single.Load())
		}
		if got := c.ect.Load() > 0; got != q.ecn {
			t.Errorf("%s: %d datagrams with ECN", side, c.ect.Load())
		}
		if got := c.segmented.Load() > 0; got != q.gso {
			t.Errorf("%s: %d sends with segments", side, c.segmented.Load())
		}
		if c.foreign.Load() != 0 {
			t.Errorf("%s: %d control messages that nobody asked for", side, c.foreign.Load())
		}
	}
	if n := client.others.Load(); n != 0 {
		t.Errorf("%d datagrams do not come from %s, which was asked", n, q.to)
	}
}

// clientOurs opens one of our sockets on the client's host.
func (l *lab) clientOurs(network string) *sockmeta.UDPConn {
	l.t.Helper()
	var c net.PacketConn
	must(l.t, l.Client.Do(func() (err error) {
		c, err = sockmeta.ListenPacket(network, ":0")
		return err
	}))
	l.t.Cleanup(func() { _ = c.Close() })
	return c.(*sockmeta.UDPConn)
}

// TestQUICAgain has connections of one client port come one after the other: what is
// found is of the connection, and not of an earlier one, whose service was another.
func TestQUICAgain(t *testing.T) {
	l := newLab(t)
	t.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	serverTLS, clientTLS := certificate(t, quicProtocol)
	pc := sockmeta.NewPeerConn(l.listenUDP("udp", anyAddress(portA)), sockmeta.PeerOptions{})
	st := &quic.Transport{Conn: pc, ConnContext: withMetadata(pc)}
	defer st.Close()
	ln, err := st.Listen(serverTLS, nil)
	must(t, err)
	go serveQUIC(ln, pc)

	ct := &quic.Transport{Conn: l.clientUDP("udp", ":0")}
	defer ct.Close()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	for i := range uint32(testutil.Scale(40) + 1) {
		must(t, l.producer.SetService(portA, 100+i))
		c, err := ct.Dial(ctx, &net.UDPAddr{IP: l.ServerAddr4.AsSlice(), Port: portA}, clientTLS, nil)
		must(t, err)
		got, err := exchange(ctx, c, []byte("hello"))
		must(t, err)
		if want := bothServices(100+i) + "\nhello"; string(got) != want {
			t.Errorf("got %q, want %q", got, want)
		}
		must(t, c.CloseWithError(0, ""))
	}
}

// TestHTTP3 asks a web server over HTTP/3 for the metadata of its request, in the
// way that docs/clients.md shows.
func TestHTTP3(t *testing.T) {
	l := newLab(t)
	t.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	serverTLS, clientTLS := certificate(t)
	for port := range services {
		pc := sockmeta.NewPeerConn(l.listenUDP("udp", anyAddress(port)), sockmeta.PeerOptions{})
		srv := &http3.Server{
			TLSConfig: http3.ConfigureTLSConfig(serverTLS),
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				peer, err := netip.ParseAddrPort(r.RemoteAddr)
				if err != nil {
					http.Error(w, err.Error(), http.StatusInternalServerError)
					return
				}
				fmt.Fprint(w, service(pc.LatestMetadata(peer)), " ", service(pc.OpeningMetadata(peer)))
			}),
		}
		defer srv.Close()
		go func() { _ = srv.Serve(pc) }()
	}
	for name, addr := range l.addrs() {
		for port, id := range services {
			ct := &quic.Transport{Conn: l.clientUDP("udp", ":0")}
			defer ct.Close()
			rt := &http3.Transport{
				TLSClientConfig: clientTLS,
				Dial: func(ctx context.Context, _ string, tc *tls.Config, qc *quic.Config) (*quic.Conn, error) {
					return ct.DialEarly(ctx, net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, port)), tc, qc)
				},
			}
			defer rt.Close()
			client := http.Client{Transport: rt, Timeout: timeout}
			resp, err := client.Get("https://" + address(addr, port))
			must(t, err)
			body, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			must(t, err)
			if want := bothServices(id); resp.Proto != "HTTP/3.0" || string(body) != want {
				t.Errorf("%s, port %d: %s %q, want %q", name, port, resp.Proto, body, want)
			}
		}
	}
}

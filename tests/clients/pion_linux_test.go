// SPDX-License-Identifier: Apache-2.0

package clients

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/dtls/v3"
	dtlsnet "github.com/pion/dtls/v3/pkg/net"
	"github.com/pion/ice/v4"

	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// peerOf is the address by which a PeerConn knows the other side of a connection.
func peerOf(c net.Conn) netip.AddrPort { return c.RemoteAddr().(*net.UDPAddr).AddrPort() }

// answerService reads a message and answers with the service that was found for it.
func answerService(c net.Conn, pc *sockmeta.PeerConn) error {
	buf := make([]byte, 100)
	if _, err := c.Read(buf); err != nil {
		return err
	}
	_, err := fmt.Fprint(c, service(pc.LatestMetadata(peerOf(c))))
	return err
}

// askService is the other side of answerService.
func askService(t *testing.T, c net.Conn) string {
	t.Helper()
	_, err := c.Write([]byte("hello"))
	must(t, err)
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	must(t, err)
	return string(buf[:n])
}

// dtlsServer and dtlsClient do their handshakes over one datagram socket each.
func dtlsServer(ctx context.Context, pc net.PacketConn, peer net.Addr, cert tls.Certificate) (net.Conn, error) {
	c, err := dtls.ServerWithOptions(pc, peer, dtls.WithCertificates(cert))
	if err != nil {
		return nil, err
	}
	if err := c.HandshakeContext(ctx); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, c.SetDeadline(time.Now().Add(timeout))
}

func dtlsClient(t *testing.T, pc net.PacketConn, peer net.Addr, roots *x509.CertPool) net.Conn {
	t.Helper()
	c, err := dtls.ClientWithOptions(pc, peer, dtls.WithRootCAs(roots), dtls.WithServerName("server"))
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	must(t, c.HandshakeContext(ctx))
	must(t, c.SetDeadline(time.Now().Add(timeout)))
	return c
}

// TestDTLS has pion's DTLS on our socket, and asks for the metadata of the record
// that brought a message.
func TestDTLS(t *testing.T) {
	l := newLab(t)
	serverTLS, clientTLS := certificate(t)
	for name, addr := range l.addrs() {
		for port, id := range services {
			t.Run(fmt.Sprint(name, " ", port), func(t *testing.T) {
				l := l.in(t)
				pc := sockmeta.NewPeerConn(l.listenUDP("udp", address(addr, port)), sockmeta.PeerOptions{})
				client := l.clientUDP("udp", netip.AddrPortFrom(l.clientAddr(addr), 0).String())
				served := make(chan error, 1)
				ctx, cancel := context.WithTimeout(t.Context(), timeout)
				defer cancel()
				go func() {
					c, err := dtlsServer(ctx, pc, client.LocalAddr(), serverTLS.Certificates[0])
					if err == nil {
						err = answerService(c, pc)
					}
					served <- err
				}()
				c := dtlsClient(t, client, pc.LocalAddr(), clientTLS.RootCAs)
				defer c.Close()
				if got := askService(t, c); got != fmt.Sprint(id) {
					t.Errorf("service is %s, want %d", got, id)
				}
				must(t, <-served)
				opening, err := pc.OpeningMetadata(client.LocalAddr().(*net.UDPAddr).AddrPort())
				if got := service(opening, err); got != id {
					t.Errorf("service of the first datagram is %d, %v, want %d", got, err, id)
				}
			})
		}
	}
}

// clientAddr is the client's address of the same family.
func (l *lab) clientAddr(server netip.Addr) netip.Addr {
	if server.Is4() {
		return l.ClientAddr4
	}
	return l.ClientAddr6
}

// An iceSide is an agent with a mux of its own.
type iceSide struct {
	agent *ice.Agent
	mux   *ice.UDPMuxDefault
}

func newICESide(t *testing.T, pc net.PacketConn, network ice.NetworkType) *iceSide {
	t.Helper()
	mux := ice.NewUDPMuxDefault(ice.UDPMuxParams{UDPConn: pc})
	t.Cleanup(func() { _ = mux.Close() })
	agent, err := ice.NewAgentWithOptions(ice.WithUDPMux(mux), ice.WithNetworkTypes([]ice.NetworkType{network}),
		ice.WithCandidateTypes([]ice.CandidateType{ice.CandidateTypeHost}),
		ice.WithMulticastDNSMode(ice.MulticastDNSModeDisabled))
	must(t, err)
	t.Cleanup(func() { _ = agent.Close() })
	return &iceSide{agent, mux}
}

// gather gives the other side the candidates of this one.
func (s *iceSide) gather(t *testing.T, to *iceSide) (ufrag, pwd string) {
	t.Helper()
	done := make(chan struct{})
	must(t, s.agent.OnCandidate(func(c ice.Candidate) {
		if c == nil {
			close(done)
			return
		}
		if err := to.agent.AddRemoteCandidate(c); err != nil {
			t.Error(err)
		}
	}))
	must(t, s.agent.GatherCandidates())
	select {
	case <-done:
	case <-time.After(timeout):
		t.Fatal("no candidates")
	}
	ufrag, pwd, err := s.agent.GetLocalUserCredentials()
	must(t, err)
	return ufrag, pwd
}

// TestICE has two agents meet over pion's UDPMux on our socket, and then DTLS on
// their connection, as in WebRTC.
func TestICE(t *testing.T) {
	l := newLab(t)
	serverTLS, clientTLS := certificate(t)
	for name, network := range map[string]ice.NetworkType{"ipv4": ice.NetworkTypeUDP4, "ipv6": ice.NetworkTypeUDP6} {
		addr := l.addrs()[name]
		for port, id := range services {
			t.Run(fmt.Sprint(name, " ", port), func(t *testing.T) {
				l := l.in(t)
				pc := sockmeta.NewPeerConn(l.listenUDP("udp", address(addr, port)), sockmeta.PeerOptions{})
				server := newICESide(t, pc, network)
				client := newICESide(t, l.clientUDP("udp", netip.AddrPortFrom(l.clientAddr(addr), 0).String()), network)
				serverUfrag, serverPwd := server.gather(t, client)
				clientUfrag, clientPwd := client.gather(t, server)
				ctx, cancel := context.WithTimeout(t.Context(), timeout)
				defer cancel()

				served := make(chan error, 1)
				go func() {
					served <- serveICE(ctx, server.agent, clientUfrag, clientPwd, serverTLS.Certificates[0], pc)
				}()
				c, err := client.agent.Dial(ctx, serverUfrag, serverPwd)
				must(t, err)
				tunnel := dtlsClient(t, dtlsnet.PacketConnFromConn(c), c.RemoteAddr(), clientTLS.RootCAs)
				defer tunnel.Close()
				if got := askService(t, tunnel); got != fmt.Sprint(id) {
					t.Errorf("service is %s, want %d", got, id)
				}
				must(t, <-served)
			})
		}
	}
}

func serveICE(
	ctx context.Context, agent *ice.Agent, ufrag, pwd string, cert tls.Certificate, pc *sockmeta.PeerConn,
) error {
	c, err := agent.Accept(ctx, ufrag, pwd)
	if err != nil {
		return err
	}
	tunnel, err := dtlsServer(ctx, dtlsnet.PacketConnFromConn(c), c.RemoteAddr(), cert)
	if err != nil {
		return err
	}
	return answerService(tunnel, pc)
}

// SPDX-License-Identifier: Apache-2.0

package clients

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// Two ports, each of a service of its own: a server that mixes up the metadata of
// its clients is seen to.
const (
	portA, serviceA = 7101, 41
	portB, serviceB = 7102, 42
)

var services = map[uint16]uint32{portA: serviceA, portB: serviceB}

const timeout = 20 * time.Second

// A lab is two hosts. The producer gives packets to the server, and their services,
// from the server's interface on.
type lab struct {
	*netlab.Pair
	producer *bpf.Producer
	t        *testing.T
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{Pair: testutil.Pair(t), t: t}
	must(t, l.Introduce())
	must(t, l.Server.Do(func() (err error) {
		l.producer, err = bpf.AttachProducer(l.ServerIf, bpf.ProducerOptions{Services: services})
		return err
	}))
	t.Cleanup(func() { _ = l.producer.Close() })
	return l
}

// in is the lab for a subtest, at whose end what it opened is closed.
func (l *lab) in(t *testing.T) *lab { return &lab{l.Pair, l.producer, t} }

// addrs are the server's, by what a test calls them.
func (l *lab) addrs() map[string]netip.Addr {
	return map[string]netip.Addr{"ipv4": l.ServerAddr4, "ipv6": l.ServerAddr6}
}

// listenUDP opens one of our sockets on the server.
func (l *lab) listenUDP(network, address string) *sockmeta.UDPConn {
	l.t.Helper()
	var c net.PacketConn
	must(l.t, l.Server.Do(func() (err error) {
		lc := sockmeta.ListenConfig{Require: true}
		c, err = lc.ListenPacket(context.Background(), network, address)
		return err
	}))
	l.t.Cleanup(func() { _ = c.Close() })
	return c.(*sockmeta.UDPConn)
}

// listenTCP opens one of our listeners on the server.
func (l *lab) listenTCP(address string) *sockmeta.TCPListener {
	l.t.Helper()
	var ln net.Listener
	must(l.t, l.Server.Do(func() (err error) {
		lc := sockmeta.ListenConfig{Require: true}
		ln, err = lc.Listen(context.Background(), "tcp", address)
		return err
	}))
	l.t.Cleanup(func() { _ = ln.Close() })
	return ln.(*sockmeta.TCPListener)
}

// dial connects a plain socket of the client's host. It is for libraries that
// take such a function, and never looks up names.
func (l *lab) dial(ctx context.Context, network, address string) (c net.Conn, err error) {
	err = l.Client.Do(func() error {
		d := net.Dialer{Timeout: timeout}
		c, err = d.DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// dialTCP is dial with the signature that gRPC wants.
func (l *lab) dialTCP(ctx context.Context, address string) (net.Conn, error) {
	return l.dial(ctx, "tcp", address)
}

// clientUDP opens a plain socket on the client's host.
func (l *lab) clientUDP(network, address string) *net.UDPConn {
	l.t.Helper()
	var c net.PacketConn
	must(l.t, l.Client.Do(func() (err error) {
		c, err = net.ListenPacket(network, address)
		return err
	}))
	l.t.Cleanup(func() { _ = c.Close() })
	return c.(*net.UDPConn)
}

// service is what a handler answers: the service that it found in its metadata, 0
// where there was none.
func service(md sockmeta.Metadata, err error) uint32 {
	if err != nil {
		return 0
	}
	s, _ := md.Uint32(sockmeta.KeyServiceID)
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// certificate returns a server's certificate, and the configuration of clients that
// trust it.
func certificate(t *testing.T, protocols ...string) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		DNSNames:     []string{"server"},
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	leaf, err := x509.ParseCertificate(der)
	must(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	server = &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}},
		NextProtos:   protocols,
	}
	return server, &tls.Config{RootCAs: roots, ServerName: "server", NextProtos: protocols}
}

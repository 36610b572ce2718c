// SPDX-License-Identifier: Apache-2.0

// Command quic sends each stream back, behind a line with the service that its connection
// was opened for, and logs what else the packet knew.
//
//	quic -listen localhost:7300
package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// protocol is what client and server call this by.
const protocol = "sockmeta-echo"

func main() {
	addr := flag.String("listen", "localhost:7300", "`address` to serve at")
	flag.Parse()
	c, err := listen(*addr)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(serve(context.Background(), c))
}

func listen(addr string) (*sockmeta.UDPConn, error) {
	laddr, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return nil, err
	}
	return sockmeta.ListenUDP("udp", laddr)
}

type serviceKey struct{}

// serve serves until ctx ends.
func serve(ctx context.Context, c *sockmeta.UDPConn) error {
	conf, err := selfSigned()
	if err != nil {
		return err
	}
	peers := sockmeta.NewPeerConn(c, sockmeta.PeerOptions{})
	tr := &quic.Transport{
		Conn: peers,
		ConnContext: func(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
			// What is copied here stays what it is, whatever the peer sends later.
			md, err := peers.LatestMetadata(info.RemoteAddr.(*net.UDPAddr).AddrPort())
			slog.Info("connection", "from", info.RemoteAddr, "metadata", &md, "err", err)
			service, _ := md.Uint32(sockmeta.KeyServiceID)
			return context.WithValue(ctx, serviceKey{}, service), nil
		},
	}
	defer tr.Close()
	l, err := tr.Listen(conf, nil)
	if err != nil {
		return err
	}
	defer l.Close()
	for {
		qc, err := l.Accept(ctx)
		if err != nil {
			return err
		}
		go echo(qc)
	}
}

// echo sends back what comes by the connection's streams, until it ends.
func echo(qc *quic.Conn) {
	for {
		s, err := qc.AcceptStream(qc.Context())
		if err != nil {
			return
		}
		go func() {
			defer s.Close()
			// Should the client have gone, there is nobody to tell.
			if _, err := fmt.Fprintf(s, "for service %d\n", qc.Context().Value(serviceKey{})); err == nil {
				_, _ = io.Copy(s, s)
			}
		}()
	}
}

// selfSigned returns a configuration with a certificate that nobody has reason to trust.
func selfSigned() (*tls.Config, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		DNSNames:     []string{"localhost"},
		NotAfter:     time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}},
		NextProtos:   []string{protocol},
	}, nil
}

// SPDX-License-Identifier: Apache-2.0

// Command dns answers every question with the service that the question was for, and
// logs what else its packet knew.
//
//	dns -listen localhost:5353
//	dig @localhost -p 5353 example.org TXT
package main

import (
	"flag"
	"fmt"
	"log"
	"log/slog"
	"net"

	"github.com/miekg/dns"

	"github.com/sockmeta/sockmeta-go/sockmeta"
)

func main() {
	addr := flag.String("listen", "localhost:5353", "`address` to answer on, over UDP and TCP")
	flag.Parse()
	udp, tcp, err := listen(*addr)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(serve(udp, tcp))
}

func listen(addr string) (*sockmeta.UDPConn, *sockmeta.TCPListener, error) {
	uaddr, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return nil, nil, err
	}
	udp, err := sockmeta.ListenUDP("udp", uaddr)
	if err != nil {
		return nil, nil, err
	}
	tcp, err := sockmeta.ListenTCP("tcp", &net.TCPAddr{IP: uaddr.IP, Port: uaddr.Port, Zone: uaddr.Zone})
	if err != nil {
		udp.Close()
		return nil, nil, err
	}
	return udp, tcp, nil
}

// serve answers until one of the sockets is closed.
func serve(udp *sockmeta.UDPConn, tcp *sockmeta.TCPListener) error {
	// The address that a handler gets knows the metadata of its question, and answers
	// leave from the address that was asked.
	replies, err := sockmeta.NewReplyConn(udp)
	if err != nil {
		return err
	}
	conns := sockmeta.NewPeerListener(tcp)
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		md, err := metadataOf(conns, w)
		slog.Info("question", "from", w.RemoteAddr(), "metadata", &md, "err", err)
		answer := new(dns.Msg).SetReply(q)
		if service, ok := md.Uint32(sockmeta.KeyServiceID); ok && err == nil && len(q.Question) == 1 {
			answer.Answer = []dns.RR{&dns.TXT{
				Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET},
				Txt: []string{fmt.Sprintf("for service %d", service)},
			}}
		}
		if err := w.WriteMsg(answer); err != nil {
			slog.Warn("no answer", "to", w.RemoteAddr(), "err", err)
		}
	})
	failed := make(chan error, 2)
	go func() { failed <- (&dns.Server{PacketConn: replies, Handler: handler}).ActivateAndServe() }()
	go func() { failed <- (&dns.Server{Listener: conns, Handler: handler}).ActivateAndServe() }()
	return <-failed
}

// metadataOf returns the metadata of a question: of the bytes that a TCP connection has
// brought last, or of the datagram.
func metadataOf(conns *sockmeta.PeerListener, w dns.ResponseWriter) (sockmeta.Metadata, error) {
	if c, ok := conns.Conn(w.LocalAddr(), w.RemoteAddr()); ok {
		return c.Metadata()
	}
	return sockmeta.FromAddr(w.RemoteAddr())
}

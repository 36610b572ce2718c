// SPDX-License-Identifier: Apache-2.0

package clients

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// questionMetadata is what a handler calls for the metadata of its question.
func questionMetadata(tcp *sockmeta.PeerListener, w dns.ResponseWriter) (sockmeta.Metadata, error) {
	if c, ok := tcp.Conn(w.LocalAddr(), w.RemoteAddr()); ok {
		return c.Metadata()
	}
	return sockmeta.FromAddr(w.RemoteAddr())
}

// serveDNS serves as CoreDNS does: a server a socket, which the server did not make,
// on all addresses.
func serveDNS(t *testing.T, udp net.PacketConn, tcp *sockmeta.PeerListener) {
	t.Helper()
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		kind := fmt.Sprintf("%T", w.RemoteAddr())
		m.Answer = append(m.Answer, &dns.TXT{
			Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET},
			Txt: []string{fmt.Sprint(service(questionMetadata(tcp, w))), kind},
		})
		_ = w.WriteMsg(m)
	})
	for _, srv := range []*dns.Server{
		{PacketConn: udp, Handler: handler, ReusePort: true},
		{Listener: tcp, Handler: handler, ReusePort: true},
	} {
		done := make(chan error, 1)
		started := make(chan struct{})
		srv.NotifyStartedFunc = func() { close(started) }
		go func() { done <- srv.ActivateAndServe() }()
		select {
		case <-started:
		case err := <-done:
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := srv.Shutdown(); err != nil {
				t.Error(err)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// ask asks over a connected socket: an answer from another address than the one
// that was asked does not reach it.
func ask(t *testing.T, l *lab, network string, addr netip.AddrPort) []string {
	t.Helper()
	c, err := l.dial(t.Context(), network, addr.String())
	must(t, err)
	defer c.Close()
	client := dns.Client{Net: network, Timeout: timeout}
	q := new(dns.Msg).SetQuestion("example.org.", dns.TypeTXT)
	m, _, err := client.ExchangeWithConn(q, &dns.Conn{Conn: c})
	if err != nil {
		t.Errorf("%s %s: %v", network, addr, err)
		return nil
	}
	return m.Answer[0].(*dns.TXT).Txt
}

// TestDNS asks a server on all addresses of a host that has several, by each of
// them, over UDP and TCP.
func TestDNS(t *testing.T) {
	l := newLab(t)
	// The kernel would answer from the first of a network's.
	second4, second6 := netip.MustParseAddr("192.0.2.77"), netip.MustParseAddr("2001:db8::77")
	must(t, netlab.AddAddr(l.Server, l.ServerIf, netip.PrefixFrom(second4, 24)))
	must(t, netlab.AddAddr(l.Server, l.ServerIf, netip.PrefixFrom(second6, 64)))

	for _, network := range []string{"udp", "udp4", "udp6"} {
		t.Run(network, func(t *testing.T) {
			l := l.in(t)
			for port := range services {
				udp, err := sockmeta.NewReplyConn(l.listenUDP(network, anyAddress(port)))
				must(t, err)
				serveDNS(t, udp, sockmeta.NewPeerListener(l.listenTCP(anyAddress(port))))
			}
			for _, addr := range []netip.Addr{l.ServerAddr4, second4, l.ServerAddr6, second6} {
				if network == "udp4" && addr.Is6() || network == "udp6" && addr.Is4() {
					continue
				}
				for port, id := range services {
					to := netip.AddrPortFrom(addr, port)
					for how, kind := range map[string]string{"udp": "*net.UDPAddr", "tcp": "*net.TCPAddr"} {
						got := ask(t, l, how, to)
						if want := []string{fmt.Sprint(id), kind}; fmt.Sprint(got) != fmt.Sprint(want) {
							t.Errorf("%s to %s: answer %q, want %q", how, to, got, want)
						}
					}
				}
			}
		})
	}
}

// TestDNSPlain shows that TestDNS can fail: without ReplyConn the answers leave
// from another address than the one that was asked.
func TestDNSPlain(t *testing.T) {
	l := newLab(t)
	second := netip.MustParseAddr("192.0.2.77")
	must(t, netlab.AddAddr(l.Server, l.ServerIf, netip.PrefixFrom(second, 24)))
	c := l.listenUDP("udp", anyAddress(portA))
	serveDNS(t, c, sockmeta.NewPeerListener(l.listenTCP(anyAddress(portA))))

	from := l.clientUDP("udp4", ":0")
	must(t, from.SetDeadline(time.Now().Add(timeout)))
	q, err := new(dns.Msg).SetQuestion("example.org.", dns.TypeTXT).Pack()
	must(t, err)
	_, err = from.WriteToUDPAddrPort(q, netip.AddrPortFrom(second, portA))
	must(t, err)
	buf := make([]byte, 512)
	_, addr, err := from.ReadFromUDPAddrPort(buf)
	must(t, err)
	if addr.Addr().Unmap() != l.ServerAddr4 {
		t.Errorf("the answer to %s comes from %s, which TestDNS counts on not to be", second, addr)
	}
}

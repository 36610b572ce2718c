// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"testing"

	"github.com/miekg/dns"

	"github.com/sockmeta/sockmeta-go/examples/clients/internal/lab"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// TestDNS asks over both protocols.
func TestDNS(t *testing.T) {
	host := lab.New(t)
	var udp *sockmeta.UDPConn
	var tcp *sockmeta.TCPListener
	lab.Do(t, host, func() (err error) {
		udp, tcp, err = listen(lab.Addr)
		return err
	})
	ended := make(chan error, 1)
	go func() { ended <- serve(udp, tcp) }()
	defer func() {
		udp.Close()
		tcp.Close()
		<-ended
	}()
	for _, network := range []string{"udp", "tcp"} {
		var c net.Conn
		lab.Do(t, host, func() (err error) {
			c, err = net.Dial(network, lab.Addr)
			return err
		})
		defer c.Close()
		q := new(dns.Msg).SetQuestion("example.org.", dns.TypeTXT)
		client := dns.Client{Net: network, Timeout: lab.Timeout}
		a, _, err := client.ExchangeWithConn(q, &dns.Conn{Conn: c})
		if err != nil {
			t.Fatalf("%s: %v", network, err)
		}
		want := fmt.Sprintf(`"for service %d"`, lab.Service)
		if len(a.Answer) != 1 || a.Answer[0].String() != a.Answer[0].Header().String()+want {
			t.Errorf("%s: answers %v, want %s", network, a.Answer, want)
		}
	}
}

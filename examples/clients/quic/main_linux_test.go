// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/quic-go/quic-go"

	"github.com/sockmeta/sockmeta-go/examples/clients/internal/lab"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// TestQUIC opens two streams of one connection.
func TestQUIC(t *testing.T) {
	host := lab.New(t)
	var c *sockmeta.UDPConn
	var from *net.UDPConn
	lab.Do(t, host, func() (err error) {
		if c, err = listen(lab.Addr); err != nil {
			return err
		}
		from, err = net.ListenUDP("udp4", nil)
		return err
	})
	defer c.Close()
	defer from.Close()
	serving, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serve(serving, c) }()
	defer func() {
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), lab.Timeout)
	defer cancel()
	tr := &quic.Transport{Conn: from}
	defer tr.Close()
	qc, err := tr.Dial(ctx, net.UDPAddrFromAddrPort(c.LocalAddr().(*net.UDPAddr).AddrPort()),
		&tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = qc.CloseWithError(0, "") }()
	for i := range 2 {
		text := fmt.Sprintf("stream %d", i)
		s, err := qc.OpenStreamSync(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(s, text); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(s)
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("for service %d\n%s", lab.Service, text); string(got) != want {
			t.Errorf("the answer is %q, want %q", got, want)
		}
	}
}

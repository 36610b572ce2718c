// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"

	"github.com/sockmeta/sockmeta-go/internal/demo"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

const requestsPerConn = 2

func runDemo(ctx context.Context) error {
	return demo.Run(ctx, os.Stdout, func(ctx context.Context, lab *demo.Lab) error {
		err := lab.Serve(func(addr string) (func() error, error) {
			l, err := listen(addr)
			if err != nil {
				return nil, err
			}
			return func() error { return serve(ctx, l) }, l.Support().Err()
		})
		if err != nil {
			return err
		}
		return lab.Each(func(target netip.AddrPort) error { return post(ctx, lab, target) })
	})
}

// post sends requests over one connection, which is the only one that its client
// may have.
func post(ctx context.Context, lab *demo.Lab, target netip.AddrPort) error {
	var (
		conn   *sockmeta.TCPConn
		conns  int
		dialed uint64
		from   netip.AddrPort
		trace  sockmeta.Metadata
	)
	transport := &http.Transport{
		// The transport's context has no deadline.
		DialContext: func(_ context.Context, network, addr string) (net.Conn, error) {
			dialed = demo.Now()
			c, err := lab.Dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			conns++
			from = demo.Addr(c.LocalAddr())
			conn = c.(*sockmeta.TCPConn)
			return conn, conn.SetMetadata(&trace)
		},
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}

	for i := range requestsPerConn {
		// What tells the messages apart is the path, as that is what the
		// answer repeats.
		body := demo.Message(target, i)
		path := fmt.Sprintf("/%s/%d", target, i+1)
		trace = demo.NewTrace()
		if conn != nil {
			if err := conn.SetMetadata(&trace); err != nil {
				return err
			}
		}
		sent := demo.Sent{
			Message: path, Port: target.Port(), TraceID: demo.NewRecord(trace, nil).TraceID,
			Start: demo.Now(),
		}
		got, err := postOne(ctx, client, "http://"+target.String()+path, body)
		if err != nil {
			return err
		}
		if got.Bytes != len(body) {
			return fmt.Errorf("%s: %d bytes arrived of %d", path, got.Bytes, len(body))
		}
		sent.From, sent.Dialed, sent.End = from, dialed, demo.Now()
		sent.Reply = demo.NewSender(conn.Metadata())
		lab.Sent(sent)
		lab.Saw(demo.Seen{
			Message: got.Path,
			From:    got.From,
			Port:    target.Port(),
			Bytes:   got.Bytes,
			Record:  got.Request,
			Opening: &got.Opening,
			Sender:  got.Sender,
			Reply: demo.Record{
				PacketID: got.Request.PacketID, Ktime: got.Request.Ktime, ServiceID: got.Request.ServiceID,
			},
		})
	}
	if conns != 1 {
		return fmt.Errorf("%d requests took %d connections, want 1", requestsPerConn, conns)
	}
	return nil
}

type parsedAnswer struct {
	Path             string
	Bytes            int
	From             netip.AddrPort
	Opening, Request demo.Record
	Sender           demo.Record
}

func postOne(ctx context.Context, client *http.Client, url, body string) (parsedAnswer, error) {
	var got parsedAnswer
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return got, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return got, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return got, fmt.Errorf("%s: %s", url, resp.Status)
	}
	// To its end, or else the connection is not used again.
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return got, err
	}
	return got, json.Unmarshal(b, &got)
}

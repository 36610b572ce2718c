// SPDX-License-Identifier: Apache-2.0

// Command grpc serves the health service. It answers each call with the service that the
// call's connection was opened for, as a header, and logs what else its packets knew.
//
//	grpc -listen localhost:7300
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"

	"github.com/sockmeta/sockmeta-go/sockmeta"
)

func main() {
	addr := flag.String("listen", "localhost:7300", "`address` to serve at")
	flag.Parse()
	l, err := listen(*addr)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(serve(l))
}

func listen(addr string) (*sockmeta.TCPListener, error) {
	laddr, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, err
	}
	return sockmeta.ListenTCP("tcp", laddr)
}

// serve serves until the listener is closed.
func serve(l *sockmeta.TCPListener) error {
	conns := sockmeta.NewPeerListener(l)
	srv := grpc.NewServer(grpc.StatsHandler(tagger{conns}), grpc.UnaryInterceptor(tell))
	defer srv.Stop()
	grpc_health_v1.RegisterHealthServer(srv, health.NewServer())
	return srv.Serve(conns)
}

// tagger puts each connection into the contexts of its calls.
type tagger struct{ conns *sockmeta.PeerListener }

type connKey struct{}

func (t tagger) TagConn(ctx context.Context, info *stats.ConnTagInfo) context.Context {
	c, _ := t.conns.Conn(info.LocalAddr, info.RemoteAddr)
	return context.WithValue(ctx, connKey{}, c)
}

func (tagger) HandleConn(context.Context, stats.ConnStats)                     {}
func (tagger) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }
func (tagger) HandleRPC(context.Context, stats.RPCStats)                       {}

// tell answers a call with the service, and logs it. Calls of one connection may come in
// one segment: what is of the connection is sure, what is of the newest bytes may be of
// another call.
func tell(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	if c, _ := ctx.Value(connKey{}).(*sockmeta.TCPConn); c != nil {
		md, err := c.OpeningMetadata()
		slog.Info("call", "method", info.FullMethod, "from", c.RemoteAddr(), "metadata", &md, "err", err)
		if service, ok := md.Uint32(sockmeta.KeyServiceID); ok && err == nil {
			if err := grpc.SetHeader(ctx, metadata.Pairs("for-service", fmt.Sprint(service))); err != nil {
				return nil, err
			}
		}
	}
	return handle(ctx, req)
}

// SPDX-License-Identifier: Apache-2.0

package clients

import (
	"context"
	"fmt"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/stats"

	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// connTagger is a stats handler that puts the connection into the contexts of its
// calls.
type connTagger struct{ listener *sockmeta.PeerListener }

func (h connTagger) TagConn(ctx context.Context, info *stats.ConnTagInfo) context.Context {
	c, _ := h.listener.Conn(info.LocalAddr, info.RemoteAddr)
	return context.WithValue(ctx, connKey{}, c)
}

func (connTagger) HandleConn(context.Context, stats.ConnStats)                     {}
func (connTagger) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }
func (connTagger) HandleRPC(context.Context, stats.RPCStats)                       {}

// connCredentials are a server's credentials that tell the connection along with
// what the credentials below them found out.
type connCredentials struct {
	credentials.TransportCredentials
}

type connInfo struct {
	credentials.AuthInfo
	conn *sockmeta.TCPConn
}

func (c connCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return conn, info, err
	}
	t, _ := sockmeta.FromConn(conn)
	return conn, connInfo{info, t}, nil
}

func (c connCredentials) Clone() credentials.TransportCredentials {
	return connCredentials{c.TransportCredentials.Clone()}
}

// healthServer answers with the services that the handler found in the metadata of
// its call, each by way of the stats handler and by way of the credentials.
type healthServer struct {
	grpc_health_v1.UnimplementedHealthServer
}

func (healthServer) Check(
	ctx context.Context, _ *grpc_health_v1.HealthCheckRequest,
) (*grpc_health_v1.HealthCheckResponse, error) {
	var values []string
	tagged, _ := ctx.Value(connKey{}).(*sockmeta.TCPConn)
	p, _ := peer.FromContext(ctx)
	info, _ := p.AuthInfo.(connInfo)
	for _, c := range []*sockmeta.TCPConn{tagged, info.conn} {
		if c == nil {
			values = append(values, "no connection")
			continue
		}
		values = append(values, fmt.Sprint(service(c.Metadata()), " ", service(c.OpeningMetadata())))
	}
	err := grpc.SetHeader(ctx, metadata.MD{"found": values})
	return &grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVING}, err
}

// TestGRPC has gRPC's handlers find the metadata of their calls' connections, in
// both ways, with TLS and without.
func TestGRPC(t *testing.T) {
	l := newLab(t)
	serverTLS, clientTLS := certificate(t)
	for _, tt := range []struct {
		name           string
		server, client credentials.TransportCredentials
	}{
		{"insecure", insecure.NewCredentials(), insecure.NewCredentials()},
		{"TLS", credentials.NewTLS(serverTLS), credentials.NewTLS(clientTLS)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := l.in(t)
			for port := range services {
				ln := sockmeta.NewPeerListener(l.listenTCP(anyAddress(port)))
				srv := grpc.NewServer(grpc.StatsHandler(connTagger{ln}), grpc.Creds(connCredentials{tt.server}))
				grpc_health_v1.RegisterHealthServer(srv, healthServer{})
				go func() { _ = srv.Serve(ln) }()
				defer srv.Stop()
			}
			for name, addr := range l.addrs() {
				for port, id := range services {
					cc, err := grpc.NewClient("passthrough:///"+address(addr, port),
						grpc.WithContextDialer(l.dialTCP), grpc.WithTransportCredentials(tt.client))
					must(t, err)
					defer cc.Close()
					for range 2 {
						var header metadata.MD
						ctx, cancel := context.WithTimeout(t.Context(), timeout)
						_, err = grpc_health_v1.NewHealthClient(cc).Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.Header(&header))
						cancel()
						must(t, err)
						want := []string{bothServices(id), bothServices(id)}
						if got := header.Get("found"); fmt.Sprint(got) != fmt.Sprint(want) {
							t.Errorf("%s, port %d: services %q, want %q", name, port, got, want)
						}
					}
				}
			}
		})
	}
}

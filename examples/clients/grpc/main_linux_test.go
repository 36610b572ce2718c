// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/sockmeta/sockmeta-go/examples/clients/internal/lab"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// TestGRPC calls twice by one connection.
func TestGRPC(t *testing.T) {
	host := lab.New(t)
	var l *sockmeta.TCPListener
	lab.Do(t, host, func() (err error) {
		l, err = listen(lab.Addr)
		return err
	})
	ended := make(chan error, 1)
	go func() { ended <- serve(l) }()
	defer func() {
		l.Close()
		<-ended
	}()
	dial := func(context.Context, string) (c net.Conn, err error) {
		err = host.Do(func() error {
			c, err = net.Dial("tcp", lab.Addr)
			return err
		})
		return c, err
	}
	cc, err := grpc.NewClient("passthrough:///"+lab.Addr, grpc.WithContextDialer(dial),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	ctx, cancel := context.WithTimeout(t.Context(), lab.Timeout)
	defer cancel()
	for range 2 {
		var header metadata.MD
		_, err := grpc_health_v1.NewHealthClient(cc).Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.Header(&header))
		if err != nil {
			t.Fatal(err)
		}
		if got, want := header.Get("for-service"), []string{fmt.Sprint(lab.Service)}; !slices.Equal(got, want) {
			t.Errorf("services %q, want %q", got, want)
		}
	}
}

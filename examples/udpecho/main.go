// SPDX-License-Identifier: Apache-2.0

// Command udpecho sends every datagram back to where it came from and logs what
// the packet knew: what XDP programs wrote in front of it, the interface,
// the hash, and so on. The echo takes the values back.
//
// With -demo it brings its own network, programs and clients, as root:
//
//	go run ./examples/udpecho -demo
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"syscall"

	"github.com/sockmeta/sockmeta-go/sockmeta"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "udpecho:", err)
		os.Exit(1)
	}
}

func run() error {
	addr := flag.String("listen", "localhost:7777", "`address` to receive on")
	demo := flag.Bool("demo", false, "show what happens to datagrams between two hosts made for that, and exit")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if *demo {
		return runDemo(ctx)
	}
	c, err := listen(*addr)
	if err != nil {
		return err
	}
	slog.Info("receiving", "addr", c.LocalAddr(), "metadata", c.Support())
	return serve(ctx, c, logDatagram)
}

func listen(addr string) (*sockmeta.UDPConn, error) {
	laddr, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return nil, err
	}
	return sockmeta.ListenUDP("udp", laddr)
}

// A datagram is what handlers get, for the time of the call.
type datagram struct {
	from     netip.AddrPort
	payload  []byte
	metadata *sockmeta.Metadata
	err      error              // why there is no metadata
	reply    *sockmeta.Metadata // that the echo takes back
}

// serve hands each datagram to handle and then echoes it, until ctx ends. It
// closes c.
func serve(ctx context.Context, c *sockmeta.UDPConn, handle func(datagram)) error {
	defer context.AfterFunc(ctx, func() { c.Close() })()
	defer c.Close()

	buf := make([]byte, 1<<16)
	var md, reply sockmeta.Metadata
	for {
		n, from, err := c.ReadMetadata(buf, &md)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		// A datagram without metadata is a datagram all the same.
		if err != nil && !sockmeta.IsMetadataError(err) {
			return err
		}
		// The values go back, but not as a wish for the mark and the priority
		// that the datagram had.
		reply = md
		reply.ClearFields()
		handle(datagram{from, buf[:n], &md, err, &reply})
		switch _, err := c.WriteMetadata(buf[:n], &reply, from); {
		case err == nil || errors.Is(err, net.ErrClosed):
		case sockmeta.IsMetadataError(err):
			slog.Warn("echo without metadata", "to", from, "err", err)
		default:
			slog.Warn("no echo", "to", from, "err", err)
		}
	}
}

func logDatagram(d datagram) {
	if d.err != nil {
		slog.Info("datagram", "from", d.from, "bytes", len(d.payload), "err", d.err)
		return
	}
	// 0 is no service: nothing on the way wrote one.
	service, _ := d.metadata.Uint32(sockmeta.KeyServiceID)
	slog.Info("datagram", "from", d.from, "bytes", len(d.payload), "service", service, "metadata", d.metadata)
}

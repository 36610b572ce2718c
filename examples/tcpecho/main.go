// SPDX-License-Identifier: Apache-2.0

// Command tcpecho sends back what its clients write and logs what the segments
// knew: the SYN that opened the connection, and the segment that brought the
// bytes of each read. The echo takes ids of that back.
//
// With -demo it brings its own network, programs and clients, as root:
//
//	go run ./examples/tcpecho -demo
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/sockmeta/sockmeta-go/sockmeta"
)

const idleTimeout = time.Minute

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "tcpecho:", err)
		os.Exit(1)
	}
}

func run() error {
	addr := flag.String("listen", "localhost:7777", "`address` to listen on")
	demo := flag.Bool("demo", false, "show what happens to connections between two hosts made for that, and exit")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if *demo {
		return runDemo(ctx)
	}
	l, err := listen(*addr)
	if err != nil {
		return err
	}
	slog.Info("listening", "addr", l.Addr(), "metadata", l.Support())
	return serve(ctx, l, logMessage)
}

func listen(addr string) (*sockmeta.TCPListener, error) {
	laddr, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, err
	}
	return sockmeta.ListenTCP("tcp", laddr)
}

// A message is what a Read returned. Handlers get it for the time of the call.
type message struct {
	conn    *sockmeta.TCPConn
	data    []byte
	opening segment // that opened the connection
	last    segment // that brought the last of data
	reply   sockmeta.Metadata
}

// A segment is what it knew, or why that is not known.
type segment struct {
	metadata sockmeta.Metadata
	err      error
}

// LogValue implements slog.LogValuer.
func (s segment) LogValue() slog.Value {
	if s.err != nil {
		return slog.StringValue(s.err.Error())
	}
	return s.metadata.LogValue()
}

// serve echoes what connections bring until ctx ends, and hands it to handle
// before. It closes l and them.
func serve(ctx context.Context, l *sockmeta.TCPListener, handle func(message)) error {
	var conns sync.WaitGroup
	defer conns.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	context.AfterFunc(ctx, func() { l.Close() })

	for {
		c, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		conns.Go(func() {
			if err := echo(ctx, c, handle); err != nil {
				slog.Warn("connection failed", "from", c.RemoteAddr(), "err", err)
			}
		})
	}
}

func echo(ctx context.Context, c *sockmeta.TCPConn, handle func(message)) error {
	defer context.AfterFunc(ctx, func() { c.Close() })()
	defer c.Close()

	m := message{conn: c}
	m.opening.metadata, m.opening.err = c.OpeningMetadata()
	buf := make([]byte, 1<<14)
	for {
		if err := c.SetDeadline(time.Now().Add(idleTimeout)); err != nil {
			return unlessClosed(err)
		}
		n, err := c.Read(buf)
		if err != nil {
			return unlessClosed(err)
		}
		m.data = buf[:n]
		m.last.metadata, m.last.err = c.Metadata()
		m.reply = replyTo(&m.last.metadata)
		handle(m)
		switch err := c.SetMetadata(&m.reply); {
		case err == nil || errors.Is(err, net.ErrClosed):
		case errors.Is(err, sockmeta.ErrNotSupported): // as m.last.err says
		default:
			slog.Warn("echo without metadata of its own", "to", c.RemoteAddr(), "err", err)
		}
		if _, err := c.Write(m.data); err != nil {
			return unlessClosed(err)
		}
	}
}

// replyTo returns what the packets of an echo carry: the service that the packet's
// way named and the trace that its sender did. Two small values always fit.
func replyTo(request *sockmeta.Metadata) (reply sockmeta.Metadata) {
	if service, ok := request.Uint32(sockmeta.KeyServiceID); ok {
		_ = reply.SetUint32(sockmeta.KeyServiceID, service)
	}
	var sender sockmeta.Metadata
	request.Sender(&sender)
	if trace, ok := sender.Bytes(sockmeta.KeyTraceID); ok {
		_ = reply.SetBytes(sockmeta.KeyTraceID, trace)
	}
	return reply
}

// unlessClosed leaves out the ways in which connections are meant to end: the
// client's end of stream and ours when ctx ends.
func unlessClosed(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func logMessage(m message) {
	slog.Info("read", "from", m.conn.RemoteAddr(), "bytes", len(m.data), "opening", m.opening, "segment", m.last)
}

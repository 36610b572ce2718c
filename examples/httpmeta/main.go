// SPDX-License-Identifier: Apache-2.0

// Command httpmeta answers every HTTP request with what its packets knew, as
// JSON: the SYN that opened the connection, and the segment that brought the
// last bytes of the request, with what its sender gave it. The packets of the
// answer take the values of that segment back.
//
// With -demo it brings its own network, programs and clients, as root:
//
//	go run ./examples/httpmeta -demo
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/sockmeta/sockmeta-go/sockmeta"
)

const (
	requestTimeout  = 10 * time.Second
	idleTimeout     = time.Minute
	shutdownTimeout = 5 * time.Second
	maxBody         = 1 << 20
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "httpmeta:", err)
		os.Exit(1)
	}
}

func run() error {
	addr := flag.String("listen", "localhost:8080", "`address` to listen on")
	demo := flag.Bool("demo", false, "show what happens to requests between two hosts made for that, and exit")
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
	return serve(ctx, l)
}

func listen(addr string) (*sockmeta.TCPListener, error) {
	laddr, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, err
	}
	return sockmeta.ListenTCP("tcp", laddr)
}

// connKey is the key of the *sockmeta.TCPConn in a request's context.
type connKey struct{}

// serve answers requests until ctx ends. It closes l.
func serve(ctx context.Context, l *sockmeta.TCPListener) error {
	srv := &http.Server{
		Handler:      http.HandlerFunc(answerRequest),
		ReadTimeout:  requestTimeout,
		WriteTimeout: requestTimeout,
		IdleTimeout:  idleTimeout,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			// With ServeTLS c is a *tls.Conn: FromConn looks below it.
			t, _ := sockmeta.FromConn(c)
			return context.WithValue(ctx, connKey{}, t)
		},
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	err := srv.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = srv.Close()
	}
	return err
}

type answer struct {
	Method  string `json:"method"`
	Path    string `json:"path"`
	Bytes   int64  `json:"bytes"` // of the body
	From    string `json:"from"`
	Opening any    `json:"opening"`
	Request any    `json:"request"`
	Sender  any    `json:"sender,omitempty"`
}

func answerRequest(w http.ResponseWriter, r *http.Request) {
	n, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	// The connection knows about the last bytes read from it. They are this
	// request's after its body has been read, unless the client sends the
	// next request before it has the answer.
	c := r.Context().Value(connKey{}).(*sockmeta.TCPConn)
	request, err := c.Metadata()
	a := answer{
		Method:  r.Method,
		Path:    r.URL.Path,
		Bytes:   n,
		From:    r.RemoteAddr,
		Opening: orError(c.OpeningMetadata()),
		Request: orError(request, err),
	}
	var sender sockmeta.Metadata
	if request.Sender(&sender) {
		a.Sender = sender
	}
	// The values go back, but not as a wish for the mark and the priority that
	// the segment had.
	request.ClearFields()
	if err := c.SetMetadata(&request); err != nil && !errors.Is(err, sockmeta.ErrNotSupported) {
		slog.Warn("answer without metadata of its own", "to", r.RemoteAddr, "err", err)
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(a); err != nil {
		slog.Warn("no answer", "to", r.RemoteAddr, "err", err)
	}
}

// orError returns what stands for the metadata in the answer.
func orError(md sockmeta.Metadata, err error) any {
	if err != nil {
		return map[string]string{"error": err.Error()}
	}
	return md
}

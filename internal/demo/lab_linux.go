// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/internal/abi"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

const (
	timeout = 20 * time.Second
	// grace is for what has been told to stop.
	grace = time.Second
)

// services are the service ids of the ports that the server listens on.
var services = map[uint16]uint32{7001: 1001, 7002: 1002}

// policy lets what client and server give each other cross the link.
var policy = bpf.Policy{MaxPriority: 6, LaunchTimes: true, LocalKeys: []uint8{abi.KeyPacketID, abi.KeyKtime, abi.KeyServiceID, abi.KeyTraceID}}

// A Lab is a client and a server host and what went on between them. Its methods
// may be called concurrently.
type Lab struct {
	pair     *netlab.Pair
	producer *bpf.Producer
	ifindex  int
	// oneWay is why only what the server saw of requests can be shown.
	oneWay  error
	cleanup []func() error

	servers sync.WaitGroup

	mu       sync.Mutex
	sent     []Sent
	seen     []Seen
	failures []error
}

// Run calls f in a new lab, prints what the application saw to w and checks it.
// It leaves nothing behind. f starts servers with Lab.Serve, whose context ends
// when f returns.
func Run(ctx context.Context, w io.Writer, f func(context.Context, *Lab) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not done after %v", timeout))
	defer cancel()
	return Hosts(policy, func(pair *netlab.Pair, a *bpf.Attachment) (err error) {
		lab := &Lab{pair: pair}
		defer func() { err = errors.Join(err, lab.close()) }()
		if err := lab.setUp(a); err != nil {
			return err
		}
		return lab.show(ctx, w, f)
	})
}

// show calls f, prints what came of it, and checks that.
func (l *Lab) show(ctx context.Context, w io.Writer, f func(context.Context, *Lab) error) error {
	if l.oneWay != nil {
		if _, err := fmt.Fprintln(w, "requests only:", l.oneWay); err != nil {
			return err
		}
	}
	if err := l.run(ctx, f); err != nil {
		return errors.Join(err, l.print(w))
	}
	if err := l.print(w); err != nil {
		return err
	}
	if err := l.check(); err != nil {
		return err
	}
	replies := " and their replies"
	if l.oneWay != nil {
		replies = ""
	}
	_, err := fmt.Fprintf(w, "ok: the metadata of %d messages%s is what it should be\n", len(l.sent), replies)
	return err
}

func (l *Lab) setUp(a *bpf.Attachment) (err error) {
	if l.ifindex, err = netlab.Index(l.pair.Server, l.pair.ServerIf); err != nil {
		return err
	}
	err = l.pair.Server.Do(func() (err error) {
		l.producer, err = bpf.AttachProducer(l.pair.ServerIf, bpf.ProducerOptions{Services: services})
		return err
	})
	if err != nil {
		return err
	}
	l.cleanup = append(l.cleanup, l.producer.Close)
	l.oneWay = l.attachLocal(a)
	if errors.Is(l.oneWay, bpf.ErrNotSupported) {
		return nil
	}
	return l.oneWay
}

// attachLocal lets what sockets give their packets cross the link.
func (l *Lab) attachLocal(a *bpf.Attachment) error {
	for _, end := range []struct {
		host  *netlab.Namespace
		iface string
	}{
		{l.pair.Client, l.pair.ClientIf},
		{l.pair.Server, l.pair.ServerIf},
	} {
		err := end.host.Do(func() error {
			local, err := a.AttachLocal(end.iface)
			if err == nil {
				l.cleanup = append(l.cleanup, local.Close)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// close undoes setUp, as far as that got.
func (l *Lab) close() error {
	var errs []error
	for _, f := range slices.Backward(l.cleanup) {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

// run returns when ctx ends, even if f does not.
func (l *Lab) run(ctx context.Context, f func(context.Context, *Lab) error) error {
	done := make(chan error, 1)
	go func() {
		serving, stop := context.WithCancel(ctx)
		err := f(serving, l)
		stop()
		l.servers.Wait()
		l.mu.Lock()
		defer l.mu.Unlock()
		done <- errors.Join(err, errors.Join(l.failures...))
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	err := context.Cause(ctx)
	select {
	case ferr := <-done:
		return errors.Join(err, ferr)
	case <-time.After(grace):
		return err
	}
}

func (l *Lab) print(w io.Writer) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return writeTable(w, l.lines())
}

// lines puts together what both sides saw.
func (l *Lab) lines() []line {
	replies := make(map[string]*Record)
	if l.oneWay == nil {
		for i := range l.sent {
			replies[l.sent[i].Message] = &l.sent[i].Reply
		}
	}
	lines := make([]line, len(l.seen))
	for i, s := range l.seen {
		lines[i] = line{s, replies[s.Message]}
	}
	return lines
}

func (l *Lab) check() error {
	refused, err := l.producer.Refused()
	if err == nil && refused != 0 {
		err = fmt.Errorf("the producer gave %d packets no metadata", refused)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(err, check(l.sent, l.seen, services, l.ifindex, l.oneWay == nil, l.producer.Timed()))
}

// Serve calls listen on the server, once for each of its ports, and serve after
// that. What serve returns fails the demo.
func (l *Lab) Serve(listen func(addr string) (serve func() error, err error)) error {
	for port := range services {
		var serve func() error
		err := l.pair.Server.Do(func() (err error) {
			serve, err = listen(fmt.Sprintf(":%d", port))
			return err
		})
		if err != nil {
			return err
		}
		l.servers.Go(func() {
			if err := serve(); err != nil {
				l.mu.Lock()
				defer l.mu.Unlock()
				l.failures = append(l.failures, fmt.Errorf("server on port %d: %w", port, err))
			}
		})
	}
	return nil
}

// targets returns the addresses of the server: each port over each family.
func (l *Lab) targets() []netip.AddrPort {
	var targets []netip.AddrPort
	for _, addr := range []netip.Addr{l.pair.ServerAddr4, l.pair.ServerAddr6} {
		for _, port := range slices.Sorted(maps.Keys(services)) {
			targets = append(targets, netip.AddrPortFrom(addr, port))
		}
	}
	return targets
}

// Dial is sockmeta.Dial on the client. The connection ends with ctx at the latest.
func (l *Lab) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var c net.Conn
	err := l.pair.Client.Do(func() (err error) {
		d := sockmeta.Dialer{Require: true}
		c, err = d.DialContext(ctx, network, addr)
		return err
	})
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(deadline); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, nil
}

// Each calls f for each of the targets, all at the same time.
func (l *Lab) Each(f func(target netip.AddrPort) error) error {
	targets := l.targets()
	errs := make([]error, len(targets))
	var wg sync.WaitGroup
	for i, target := range targets {
		wg.Go(func() {
			if err := f(target); err != nil {
				errs[i] = fmt.Errorf("client of %s: %w", target, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Echo sends n messages of different sizes to each of the targets, from a socket
// each and each with a trace id, and waits for the echo of each before it sends
// the next.
func (l *Lab) Echo(ctx context.Context, network string, n int) error {
	return l.Each(func(target netip.AddrPort) error {
		dialed := Now()
		c, err := l.Dial(ctx, network, target.String())
		if err != nil {
			return err
		}
		defer c.Close()
		for i := range n {
			m := Message(target, i)
			md := NewTrace()
			sent := Sent{
				Message: m, From: Addr(c.LocalAddr()), Port: target.Port(), TraceID: NewRecord(md, nil).TraceID,
				Dialed: dialed, Start: Now(),
			}
			if err := send(c, m, &md); err != nil {
				return err
			}
			// A byte more, so that a longer echo is noticed.
			echo := make([]byte, len(m)+1)
			got, err := io.ReadAtLeast(c, echo, len(m))
			if err != nil {
				return err
			}
			if string(echo[:got]) != m {
				return fmt.Errorf("echo of %.20q is %.20q, %d bytes", m, echo[:got], got)
			}
			sent.End = Now()
			sent.Reply = NewSender(c.(withMetadata).Metadata())
			l.Sent(sent)
		}
		return nil
	})
}

// withMetadata are *sockmeta.UDPConn and *sockmeta.TCPConn.
type withMetadata interface {
	Metadata() (sockmeta.Metadata, error)
}

// send sends a message that fits into one packet, which takes md along.
func send(c net.Conn, m string, md *sockmeta.Metadata) error {
	if u, ok := c.(*sockmeta.UDPConn); ok {
		_, err := u.WriteMetadata([]byte(m), md, netip.AddrPort{})
		return err
	}
	if err := c.(*sockmeta.TCPConn).SetMetadata(md); err != nil {
		return err
	}
	_, err := io.WriteString(c, m)
	return err
}

// NewTrace returns metadata with a trace id that no other has.
func NewTrace() (md sockmeta.Metadata) {
	id := make([]byte, 16)
	_, _ = rand.Read(id) // it does not fail
	_ = md.SetBytes(sockmeta.KeyTraceID, id)
	return md
}

// Message returns the i-th message to a target, with a size of its own. It fits
// into one segment.
func Message(target netip.AddrPort, i int) string {
	m := fmt.Sprintf("message %d to %s ", i+1, target)
	return m + strings.Repeat(".", 100*(i+1)+int(target.Port()%10)*10-len(m))
}

// Sent takes down what a client has sent.
func (l *Lab) Sent(s Sent) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent = append(l.sent, s)
}

// Saw takes down what a server saw just now.
func (l *Lab) Saw(s Seen) {
	s.At = Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = append(l.seen, s)
}

// Addr returns the address of a socket, an IPv4 address as such also where the
// socket is of both families.
func Addr(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.UDPAddr:
		return Unmap(a.AddrPort())
	case *net.TCPAddr:
		return Unmap(a.AddrPort())
	}
	return netip.AddrPort{}
}

// Unmap is netip.Addr.Unmap for an address with a port.
func Unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// Now returns the time by the producer's clock, CLOCK_MONOTONIC, in nanoseconds.
func Now() uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(os.NewSyscallError("clock_gettime", err))
	}
	return uint64(ts.Nano())
}

// SPDX-License-Identifier: Apache-2.0

package sockmeta_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"syscall"
	"testing"

	"github.com/sockmeta/sockmeta-go/sockmeta"
)

var errRefused = errors.New("refused by the application")

// recorder is a Control function that writes down its arguments.
type recorder struct {
	calls []string
	err   error
}

func (r *recorder) control(network, address string, rc syscall.RawConn) error {
	r.calls = append(r.calls, fmt.Sprint(network, " ", address, " ", rc != nil))
	return r.err
}

func (r *recorder) controlContext(_ context.Context, network, address string, rc syscall.RawConn) error {
	r.calls = append(r.calls, fmt.Sprint("context ", network, " ", address, " ", rc != nil))
	return r.err
}

// TestListenControl has the application's Control function called as by
// net.ListenConfig, and its error returned.
func TestListenControl(t *testing.T) {
	for _, refuse := range []error{nil, errRefused} {
		for _, network := range []string{"udp", "udp4", "tcp", "tcp4", "unixgram", "unix"} {
			t.Run(fmt.Sprint(network, " ", refuse), func(t *testing.T) {
				address := "127.0.0.1:0"
				if network == "unix" || network == "unixgram" {
					address = filepath.Join(t.TempDir(), "socket")
				}
				plain, ours := recorder{err: refuse}, recorder{err: refuse}
				config := func(r *recorder) net.ListenConfig {
					lc := net.ListenConfig{Control: r.control}
					// net tries both, with a call for each.
					lc.SetMultipathTCP(false)
					return lc
				}
				lc := config(&plain)
				want := listen(network, address, &lc)
				_ = os.Remove(address) // Close leaves the file of a unixgram socket
				got := listen(network, address, &sockmeta.ListenConfig{ListenConfig: config(&ours)})
				if !slices.Equal(ours.calls, plain.calls) || len(ours.calls) == 0 {
					t.Errorf("calls %q, by net %q", ours.calls, plain.calls)
				}
				if fmt.Sprint(got) != fmt.Sprint(want) || !errors.Is(got, refuse) {
					t.Errorf("error is %v, of net %v", got, want)
				}
			})
		}
	}
}

type listenConfig interface {
	Listen(ctx context.Context, network, address string) (net.Listener, error)
	ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error)
}

func listen(network, address string, lc listenConfig) error {
	switch network {
	case "udp", "udp4", "unixgram":
		c, err := lc.ListenPacket(context.Background(), network, address)
		if err != nil {
			return err
		}
		return c.Close()
	}
	l, err := lc.Listen(context.Background(), network, address)
	if err != nil {
		return err
	}
	return l.Close()
}

// TestDialControl is TestListenControl for dialers, where ControlContext comes
// before Control.
func TestDialControl(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, refuse := range []error{nil, errRefused} {
		for _, which := range []string{"Control", "ControlContext", "both"} {
			for _, network := range []string{"udp", "tcp"} {
				t.Run(fmt.Sprint(network, " ", which, " ", refuse), func(t *testing.T) {
					dialer := func(r *recorder) (d net.Dialer) {
						if which != "ControlContext" {
							d.Control = r.control
						}
						if which != "Control" {
							d.ControlContext = r.controlContext
						}
						return d
					}
					plain, ours := recorder{err: refuse}, recorder{err: refuse}
					p := dialer(&plain)
					d := sockmeta.Dialer{Dialer: dialer(&ours)}
					pc, want := p.Dial(network, l.Addr().String())
					c, got := d.Dial(network, l.Addr().String())
					if !slices.Equal(ours.calls, plain.calls) || len(ours.calls) == 0 {
						t.Errorf("calls %q, by net %q", ours.calls, plain.calls)
					}
					if fmt.Sprint(got) != fmt.Sprint(want) || !errors.Is(got, refuse) {
						t.Errorf("error is %v, of net %v", got, want)
					}
					if got == nil && want == nil {
						_, _ = pc.Close(), c.Close()
					}
				})
			}
		}
	}
}

// TestTypes has the functions return what their documentation says.
func TestTypes(t *testing.T) {
	pc, err := sockmeta.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	if _, ok := pc.(*sockmeta.UDPConn); !ok {
		t.Errorf("ListenPacket returns %T", pc)
	}
	l, err := sockmeta.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, ok := l.(*sockmeta.TCPListener); !ok {
		t.Errorf("Listen returns %T", l)
	}
	u, err := sockmeta.Dial("udp", pc.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if _, ok := u.(*sockmeta.UDPConn); !ok {
		t.Errorf("Dial returns %T for UDP", u)
	}
	c, err := sockmeta.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, ok := c.(*sockmeta.TCPConn); !ok {
		t.Errorf("Dial returns %T for TCP", c)
	}
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if _, ok := a.(*sockmeta.TCPConn); !ok {
		t.Errorf("Accept returns %T", a)
	}
}

// TestFromConn looks for the connection below wrappers.
func TestFromConn(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ours, err := sockmeta.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	plain, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	for _, tt := range []struct {
		name string
		c    net.Conn
		want net.Conn
	}{
		{"itself", ours, ours},
		{"TLS", tls.Client(ours, nil), ours},
		{"TLS in TLS", tls.Client(tls.Client(ours, nil), nil), ours},
		{"plain", plain, nil},
		{"TLS on a plain one", tls.Client(plain, nil), nil},
		{"nil", nil, nil},
		{"UDP", &sockmeta.UDPConn{}, nil},
	} {
		got, ok := sockmeta.FromConn(tt.c)
		if ok != (tt.want != nil) || ok && net.Conn(got) != tt.want {
			t.Errorf("%s: %v, %v", tt.name, got, ok)
		}
	}
}

// TestOtherNetworks has sockets that carry no metadata be those of package
// net, unless metadata is required.
func TestOtherNetworks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	l, err := sockmeta.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, ok := l.(*net.UnixListener); !ok {
		t.Errorf("Listen returns %T", l)
	}
	c, err := sockmeta.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, ok := c.(*net.UnixConn); !ok {
		t.Errorf("Dial returns %T", c)
	}

	d := sockmeta.Dialer{Require: true}
	if c, err := d.Dial("unix", path); c != nil || !errors.Is(err, sockmeta.ErrNotSupported) {
		t.Errorf("Dial returns %v, %v", c, err)
	}
	lc := sockmeta.ListenConfig{Require: true}
	if l, err := lc.Listen(t.Context(), "unix", path+"2"); l != nil || !errors.Is(err, sockmeta.ErrNotSupported) {
		t.Errorf("Listen returns %v, %v", l, err)
	}
	if c, err := lc.ListenPacket(t.Context(), "unixgram", path+"3"); c != nil || !errors.Is(err, sockmeta.ErrNotSupported) {
		t.Errorf("ListenPacket returns %v, %v", c, err)
	}
}

// TestRequire agrees with what sockets say of themselves.
func TestRequire(t *testing.T) {
	probe, err := sockmeta.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer probe.Close()
	want := probe.Support().Err()
	lc := sockmeta.ListenConfig{Require: true}
	d := sockmeta.Dialer{Require: true}
	for _, network := range []string{"udp4", "tcp4"} {
		t.Run(network, func(t *testing.T) {
			address := probe.LocalAddr().String()
			if network == "udp4" {
				c, err := lc.ListenPacket(t.Context(), network, "127.0.0.1:0")
				wantRequired(t, c == nil, err, want)
				if c != nil {
					defer c.Close()
				}
			} else {
				plain, err := net.Listen(network, "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				defer plain.Close()
				address = plain.Addr().String()
				l, err := lc.Listen(t.Context(), network, "127.0.0.1:0")
				wantRequired(t, l == nil, err, want)
				if l != nil {
					defer l.Close()
				}
			}
			c, err := d.Dial(network, address)
			wantRequired(t, c == nil, err, want)
			if c != nil {
				defer c.Close()
			}
		})
	}
}

func wantRequired(t *testing.T, none bool, err, missing error) {
	t.Helper()
	if none != (err != nil) || (err != nil) != (missing != nil) {
		t.Errorf("none: %v, error %v, sockets say %v", none, err, missing)
	}
	if err != nil && !errors.Is(err, sockmeta.ErrNotSupported) {
		t.Errorf("error is %v", err)
	}
}

// TestNoPlainConns looks at the methods that come with the embedded types of
// package net: none may give out a connection without metadata.
func TestNoPlainConns(t *testing.T) {
	for _, config := range []any{&sockmeta.Dialer{}, &sockmeta.ListenConfig{}} {
		typ := reflect.TypeOf(config)
		for m := range typ.Methods() {
			for out := range m.Type.Outs() {
				switch out {
				case reflect.TypeFor[*net.UDPConn](), reflect.TypeFor[*net.TCPConn](), reflect.TypeFor[*net.TCPListener]():
					t.Errorf("%v.%s returns %v", typ, m.Name, out)
				}
			}
		}
	}
}

// TestConfigUnchanged uses configurations again and again.
func TestConfigUnchanged(t *testing.T) {
	var lr, dr recorder
	lc := sockmeta.ListenConfig{ListenConfig: net.ListenConfig{Control: lr.control}}
	d := sockmeta.Dialer{Dialer: net.Dialer{Control: dr.control}}
	for i := range 3 {
		c, err := lc.ListenPacket(t.Context(), "udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		u, err := d.Dial("udp4", c.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		if len(lr.calls) != i+1 || len(dr.calls) != i+1 {
			t.Errorf("after %d times: calls %q and %q", i+1, lr.calls, dr.calls)
		}
	}
	if d.ControlContext != nil {
		t.Error("Dial changed its dialer")
	}
}

// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/conn"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// multipathLab is a namespace with Multipath TCP.
func multipathLab(t *testing.T) *netlab.Namespace {
	t.Helper()
	ns := testutil.Namespace(t)
	must(t, ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_MPTCP)
		if err == unix.EPROTONOSUPPORT || err == unix.EINVAL {
			t.Skipf("the kernel has no Multipath TCP: %v", err)
		}
		if err != nil && err != unix.ENOPROTOOPT {
			return err
		}
		_ = unix.Close(fd)
		return os.WriteFile("/proc/sys/net/mptcp/enabled", []byte("1"), 0)
	}))
	return ns
}

// multipathListener is package net's own.
func multipathListener(t *testing.T, ns *netlab.Namespace) *net.TCPListener {
	t.Helper()
	var l net.Listener
	must(t, ns.Do(func() (err error) {
		var lc net.ListenConfig
		lc.SetMultipathTCP(true)
		l, err = lc.Listen(t.Context(), "tcp4", "127.0.0.1:0")
		return err
	}))
	t.Cleanup(func() { _ = l.Close() })
	return l.(*net.TCPListener)
}

// multipathDial is package net's own, or with metadata.
func multipathDial(t *testing.T, ns *netlab.Namespace, to net.Addr, meta bool) net.Conn {
	t.Helper()
	var d sockmeta.Dialer
	d.SetMultipathTCP(true)
	d.Timeout = udpPatience
	dial := d.Dialer.Dial
	if meta {
		dial = d.Dial
	}
	var c net.Conn
	must(t, ns.Do(func() (err error) {
		c, err = dial("tcp4", to.String())
		return err
	}))
	t.Cleanup(func() { _ = c.Close() })
	must(t, c.SetDeadline(time.Now().Add(udpPatience)))
	return c
}

type multipath interface{ MultipathTCP() (bool, error) }

func wantMultipath(t *testing.T, c net.Conn, want bool) {
	t.Helper()
	if got, err := c.(multipath).MultipathTCP(); err != nil || got != want {
		t.Errorf("%T uses Multipath TCP: %v, %v, want %v", c, got, err, want)
	}
}

// wantNoMultipathMetadata checks that a connection that cannot have metadata has none,
// and says why.
func wantNoMultipathMetadata(t *testing.T, c *sockmeta.TCPConn) {
	t.Helper()
	var md sockmeta.Metadata
	md.SetPriority(1)
	errs := map[string]error{"support": c.Support().Err(), "SetMetadata": c.SetMetadata(&md)}
	for name, get := range map[string]func() (sockmeta.Metadata, error){
		"Metadata": c.Metadata, "OpeningMetadata": c.OpeningMetadata, "LatestMetadata": c.LatestMetadata,
	} {
		got, err := get()
		if got != (sockmeta.Metadata{}) {
			t.Errorf("%s is %v", name, got)
		}
		errs[name] = err
	}
	for name, err := range errs {
		if !errors.Is(err, sockmeta.ErrNotSupported) || !strings.Contains(err.Error(), "Multipath TCP") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// pingPong sends both ways.
func pingPong(t *testing.T, a, b net.Conn) {
	t.Helper()
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		must1(t)(io.WriteString(way[0], "payload"))
		got := make([]byte, len("payload"))
		if _, err := io.ReadFull(way[1], got); err != nil || string(got) != "payload" {
			t.Fatalf("%q, %v", got, err)
		}
	}
}

// TestMultipathWrapped wraps connections that use Multipath TCP: data goes as before,
// and there is no metadata, of whichever subflow.
func TestMultipathWrapped(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	ns := multipathLab(t)
	testutil.EnterCgroup(t)
	a, err := bpf.Attach(bpf.Options{})
	must(t, err)
	defer a.Close()

	t.Run("listener", func(t *testing.T) {
		l := conn.NewTCPListener(multipathListener(t, ns))
		client := multipathDial(t, ns, l.Addr(), true)
		c, err := l.AcceptTCP()
		must(t, err)
		defer c.Close()
		must(t, c.SetDeadline(time.Now().Add(udpPatience)))
		wantMultipath(t, c, true)
		wantMultipath(t, client, true)
		pingPong(t, client, c)
		wantNoMultipathMetadata(t, c)
		wantNoMultipathMetadata(t, client.(*sockmeta.TCPConn))
	})
	t.Run("connection", func(t *testing.T) {
		l := multipathListener(t, ns)
		client := multipathDial(t, ns, l.Addr(), false)
		tc, err := l.AcceptTCP()
		must(t, err)
		must(t, tc.SetDeadline(time.Now().Add(udpPatience)))
		c := sockmeta.WrapTCP(tc)
		defer c.Close()
		wantMultipath(t, c, true)
		pingPong(t, client, c)
		wantNoMultipathMetadata(t, c)
	})
	// A listener for Multipath TCP takes others, too. Those are plain TCP sockets,
	// but were none while their listener's programs could see them.
	t.Run("fallen back", func(t *testing.T) {
		l := conn.NewTCPListener(multipathListener(t, ns))
		var client net.Conn
		must(t, ns.Do(func() (err error) {
			var d net.Dialer
			d.SetMultipathTCP(false)
			client, err = d.Dial("tcp4", l.Addr().String())
			return err
		}))
		defer client.Close()
		must(t, client.SetDeadline(time.Now().Add(udpPatience)))
		c, err := l.AcceptTCP()
		must(t, err)
		defer c.Close()
		must(t, c.SetDeadline(time.Now().Add(udpPatience)))
		pingPong(t, client, c)
		wantNoMultipathMetadata(t, c)
	})
	// The subflows' records, had there been any, are nobody's.
	if n, err := a.Counts(); err != nil || n.Sent != 0 {
		t.Errorf("%+v, %v", n, err)
	}
}

// TestMultipathOff has our own listeners answer peers that would like Multipath TCP
// with TCP, which has metadata.
func TestMultipathOff(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	ns := multipathLab(t)
	testutil.EnterCgroup(t)
	var l net.Listener
	must(t, ns.Do(func() (err error) {
		var lc sockmeta.ListenConfig
		lc.SetMultipathTCP(true)
		lc.Require = true
		l, err = lc.Listen(t.Context(), "tcp4", "127.0.0.1:0")
		return err
	}))
	defer l.Close()
	client := multipathDial(t, ns, l.Addr(), false)
	c, err := l.(*sockmeta.TCPListener).AcceptTCP()
	must(t, err)
	defer c.Close()
	must(t, c.SetDeadline(time.Now().Add(udpPatience)))
	wantMultipath(t, c, false)
	wantMultipath(t, client, false)
	pingPong(t, client, c)
	md, err := c.Metadata()
	must(t, err)
	must(t, ns.Do(func() error { return wantLoopback(&md) }))
}

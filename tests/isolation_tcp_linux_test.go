// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

func init() { children["isolationPort"] = isolationPort }

const portEnv = "SOCKMETA_TEST_PORT"

// TestIsolationPort has another listener take over a port, and connections with the
// same addresses and ports, as those of the victim that had it before: established,
// reset, in TIME-WAIT, and half open.
func TestIsolationPort(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	const port = clientPort
	for _, tt := range []struct {
		name string
		// before is what the victim's listener sees from the client's port.
		before func(t *testing.T, lab *tcpLab, victim *sockmeta.TCPListener)
	}{
		{"reset", func(t *testing.T, lab *tcpLab, victim *sockmeta.TCPListener) {
			client := lab.dialFrom(port, nil)
			c := lab.accept(victim)
			must1(t)(client.Write([]byte("secret")))
			read(t, c, "secret")
			must(t, client.SetLinger(0))
			must(t, client.Close())
		}},
		{"TIME-WAIT", func(t *testing.T, lab *tcpLab, victim *sockmeta.TCPListener) {
			client := lab.dialFrom(port, nil)
			c := lab.accept(victim)
			must1(t)(client.Write([]byte("secret")))
			read(t, c, "secret")
			must(t, c.Close())
			if _, err := client.Read(make([]byte, 1)); err != io.EOF {
				t.Fatal(err)
			}
			must(t, client.Close())
		}},
		{"half open", func(t *testing.T, lab *tcpLab, victim *sockmeta.TCPListener) {
			var raw int
			must(t, lab.Client.Do(func() (err error) {
				raw, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
				return err
			}))
			defer unix.Close(raw)
			must(t, floodSyns(raw, lab.ClientAddr4, lab.ServerAddr4, port, tcpPort, 1))
		}},
		{"not accepted", func(t *testing.T, lab *tcpLab, victim *sockmeta.TCPListener) {
			client := lab.dialFrom(port, nil)
			must1(t)(client.Write([]byte("secret")))
			must(t, client.SetLinger(0))
			must(t, client.Close())
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lab := newTCPLab(t)
			victim := lab.listen(sockmeta.ListenConfig{})
			tt.before(t, lab, victim)
			must(t, victim.Close())
			last := lab.packetsSoFar()

			// As the other user does: a socket is known by its number alone.
			other := lab.listen(sockmeta.ListenConfig{})
			client := lab.dialFrom(port, beginAt(firstSyn))
			c := lab.accept(other)
			must1(t)(client.Write([]byte("hello")))
			read(t, c, "hello")
			for name, get := range map[string]func() (sockmeta.Metadata, error){
				"opening": c.OpeningMetadata, "read": c.Metadata, "latest": c.LatestMetadata,
			} {
				md, err := get()
				if id := packetID(t, md, err); id <= last[id>>48] {
					t.Errorf("%s: packet %#x, and the victim's were up to %#x", name, id, last)
				}
			}
		})
	}
}

// beginAt has a connection begin at a sequence number: the same as the victim's had.
func beginAt(seq int) func(_, _ string, rc syscall.RawConn) error {
	const sendQueue, noProbe = 2, -1 // TCP_SEND_QUEUE, TCP_REPAIR_OFF_NO_WP
	return func(_, _ string, rc syscall.RawConn) error {
		var err error
		cerr := rc.Control(func(fd uintptr) {
			for _, opt := range [][2]int{
				{unix.TCP_REPAIR, 1}, {unix.TCP_REPAIR_QUEUE, sendQueue}, {unix.TCP_QUEUE_SEQ, seq}, {unix.TCP_REPAIR, noProbe},
			} {
				err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, opt[0], opt[1]))
			}
		})
		return errors.Join(cerr, err)
	}
}

// dialFrom connects a plain client from a port.
func (l *tcpLab) dialFrom(port int, control func(_, _ string, rc syscall.RawConn) error) *net.TCPConn {
	l.t.Helper()
	var c net.Conn
	must(l.t, l.Client.Do(func() (err error) {
		d := net.Dialer{Timeout: 10 * time.Second, LocalAddr: &net.TCPAddr{Port: port}, Control: control}
		c, err = d.Dial("tcp4", netip.AddrPortFrom(l.ServerAddr4, tcpPort).String())
		return err
	}))
	l.t.Cleanup(func() { _ = c.Close() })
	return c.(*net.TCPConn)
}

// packetsSoFar returns the id of a packet of each CPU's, by the part of the id that
// says which it is.
func (l *tcpLab) packetsSoFar() map[uint64]uint64 {
	l.t.Helper()
	c := listenUDP(l.t, l.Server, "udp4", &net.UDPAddr{Port: tcpPort})
	from := dialUDP(l.t, l.Client, nil, udpAddr(l.ServerAddr4, tcpPort))
	last := make(map[uint64]uint64)
	must(l.t, onEachCPU(func() error {
		if _, err := from.Write([]byte("marker")); err != nil {
			return err
		}
		var md sockmeta.Metadata
		_, _, err := c.ReadMetadata(make([]byte, 16), &md)
		id := packetID(l.t, md, err)
		last[id>>48] = id
		return nil
	}))
	return last
}

// TestIsolationReusePort has another user want to share the victim's port, which the
// kernel allows none but the same user.
func TestIsolationReusePort(t *testing.T) {
	testutil.RequireRoot(t)
	lab := newTCPLab(t)
	shared := sockmeta.ListenConfig{ListenConfig: net.ListenConfig{Control: reusePort}}
	lab.listen(shared)
	lab.listen(shared)
	out, err := testutil.RunChild(t, "isolationPort", testutil.ChildOptions{
		UID: nobody, GID: nobody, NoNewPrivs: true, Netns: lab.Server, Env: []string{env(portEnv, tcpPort)},
	})
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func reusePort(_, _ string, rc syscall.RawConn) error {
	var err error
	cerr := rc.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
	return errors.Join(cerr, err)
}

func isolationPort() error {
	lc := sockmeta.ListenConfig{ListenConfig: net.ListenConfig{Control: reusePort}}
	l, err := lc.Listen(context.Background(), "tcp", ":"+strconv.FormatUint(envNumber(portEnv), 10))
	if err == nil {
		return fmt.Errorf("listens on %v", l.Addr())
	}
	if !errors.Is(err, unix.EADDRINUSE) {
		return err
	}
	return nil
}

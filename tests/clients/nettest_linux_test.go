// SPDX-License-Identifier: Apache-2.0

package clients

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/net/nettest"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// forDatagrams are nettest's tests that need no end of the stream, which datagrams do
// not have, nor that nothing is lost.
var forDatagrams = []string{
	"RacyRead", "RacyWrite", "ReadTimeout", "WriteTimeout", "PastTimeout", "PresentTimeout", "FutureTimeout",
	"CloseTimeout", "ConcurrentMethods",
}

var forStreams = append([]string{"BasicIO", "PingPong"}, forDatagrams...)

// TestConn is golang.org/x/net/nettest: all of it for TCP, and for UDP what datagrams
// can do. nettest lets nobody choose; go test does.
func TestConn(t *testing.T) {
	for _, tt := range []struct {
		name  string
		tests []string
	}{
		{"TestStreams", forStreams},
		{"TestDatagrams", forDatagrams},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var want []string
			for _, family := range []string{"ipv4", "ipv6"} {
				for _, name := range tt.tests {
					want = append(want, tt.name+"/"+family+"/"+name)
				}
			}
			again(t, "^"+tt.name+"$/^ipv[46]$/^("+strings.Join(tt.tests, "|")+")$", want)
		})
	}
}

var loopback = map[string]string{"ipv4": "127.0.0.1:0", "ipv6": "[::1]:0"}

func TestStreams(t *testing.T) {
	inAgain(t)
	for family, address := range loopback {
		t.Run(family, func(t *testing.T) {
			nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) { return streams(address) })
		})
	}
}

func TestDatagrams(t *testing.T) {
	inAgain(t)
	for family, address := range loopback {
		t.Run(family, func(t *testing.T) {
			nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) { return datagrams(address) })
		})
	}
}

func streams(address string) (c1, c2 net.Conn, stop func(), err error) {
	l, err := sockmeta.Listen("tcp", address)
	if err != nil {
		return nil, nil, nil, err
	}
	defer l.Close()
	if c1, err = sockmeta.Dial("tcp", l.Addr().String()); err != nil {
		return nil, nil, nil, err
	}
	if c2, err = l.Accept(); err != nil {
		_ = c1.Close()
		return nil, nil, nil, err
	}
	return c1, c2, func() { _, _ = c1.Close(), c2.Close() }, nil
}

// datagrams returns two UDP sockets that are connected to each other. The first has
// to have a port before it can know the other's: a third socket, on the same port,
// keeps it until then.
func datagrams(address string) (c1, c2 net.Conn, stop func(), err error) {
	lc := sockmeta.ListenConfig{ListenConfig: net.ListenConfig{Control: reuseAddr}}
	keeper, err := lc.ListenPacket(context.Background(), "udp", address)
	if err != nil {
		return nil, nil, nil, err
	}
	defer keeper.Close()
	if c2, err = sockmeta.Dial("udp", keeper.LocalAddr().String()); err != nil {
		return nil, nil, nil, err
	}
	d := sockmeta.Dialer{Dialer: net.Dialer{LocalAddr: keeper.LocalAddr(), Control: reuseAddr}}
	if c1, err = d.Dial("udp", c2.LocalAddr().String()); err != nil {
		_ = c2.Close()
		return nil, nil, nil, err
	}
	for _, c := range []net.Conn{c1, c2} {
		err = errors.Join(err, neverFull(c.(*sockmeta.UDPConn)))
	}
	return c1, c2, func() { _, _ = c1.Close(), c2.Close() }, err
}

func reuseAddr(_, _ string, rc syscall.RawConn) error {
	return setOption(rc, unix.SO_REUSEADDR, 1)
}

// neverFull gives the socket a receive buffer for all that a test writes before it
// begins to read: some of nettest's wait for a certain byte to come back.
func neverFull(c *sockmeta.UDPConn) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return setOption(rc, unix.SO_RCVBUFFORCE, 512<<20)
}

func setOption(rc syscall.RawConn, opt, value int) error {
	var err error
	cerr := rc.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, opt, value) })
	return errors.Join(cerr, os.NewSyscallError("setsockopt", err))
}

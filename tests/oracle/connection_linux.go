// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// From linux/tcp.h, which x/sys/unix leaves out.
const (
	tcpFastOpenConnect = 30
	saveWithLink       = 2 // of TCP_SAVE_SYN
)

// lifetime bounds what one connection of a plan may take.
const (
	lifetime      = 30 * time.Second
	hastyLifetime = 3 * time.Second
)

// A task is one connection of a plan, made and judged in a lab.
type task struct {
	lab    *lab
	plan   *connection
	port   uint16
	tally  *tally
	where  string
	fixed  bool
	expiry time.Time
}

func (k *task) run() {
	k.expiry = time.Now().Add(lifetime)
	if k.plan.hasty {
		k.expiry = time.Now().Add(hastyLifetime)
	}
	k.lab.wire.expect(k.port, k.plan)
	var err error
	switch k.plan.mode {
	case datagrams, trains:
		err = k.runUDP()
	case dialed:
		err = k.runDialed()
	case crossed:
		err = k.runCrossed()
	default:
		err = k.runAccepted()
	}
	if err != nil {
		k.tally.trouble(k.where, err)
	}
}

func (k *task) addrs() (client, server netip.AddrPort) {
	i := 0
	if k.plan.v6 {
		i = 1
	}
	return netip.AddrPortFrom(clientAddrs[i].Addr(), k.port), netip.AddrPortFrom(serverAddrs[i].Addr(), k.port)
}

// options set those of sockets before they are bound.
type option struct{ level, name, value int }

func (k *task) control(opts ...option) func(string, string, syscall.RawConn) error {
	return func(_, _ string, rc syscall.RawConn) error {
		var err error
		cerr := rc.Control(func(fd uintptr) {
			for _, o := range opts {
				if o.value == 0 {
					continue
				}
				if serr := unix.SetsockoptInt(int(fd), o.level, o.name, o.value); serr != nil && err == nil {
					err = os.NewSyscallError(fmt.Sprintf("setsockopt %d, %d", o.level, o.name), serr)
				}
			}
		})
		return errors.Join(cerr, err)
	}
}

func (k *task) receiveBuffer() option {
	return option{unix.SOL_SOCKET, unix.SO_RCVBUF, choose(bufferSizes[:], k.plan.buffer)}
}

// listen returns the server's listener: sockmeta's, or net's for what opts in late
// or cannot.
func (k *task) listen(addr netip.AddrPort) (l net.Listener, err error) {
	err = k.lab.server.Do(func() (err error) {
		plain := net.ListenConfig{Control: k.control(k.receiveBuffer(), option{unix.IPPROTO_TCP, unix.TCP_SAVE_SYN, saveWithLink})}
		switch k.plan.mode {
		case late:
			plain.SetMultipathTCP(false)
			l, err = plain.Listen(context.Background(), "tcp", addr.String())
		case multipath:
			plain.Control = nil
			plain.SetMultipathTCP(true)
			l, err = plain.Listen(context.Background(), "tcp", addr.String())
		default:
			lc := sockmeta.ListenConfig{ListenConfig: plain, Require: true}
			l, err = lc.Listen(context.Background(), "tcp", addr.String())
		}
		return err
	})
	return l, err
}

// dial is the client's, from a port or from any (0).
func (k *task) dial(addr netip.AddrPort, from uint16) (c net.Conn, err error) {
	opts := []option{
		{unix.IPPROTO_TCP, unix.TCP_MAXSEG, choose(segmentSizes[:], k.plan.segment)},
		{unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE, k.plan.pace},
	}
	d := net.Dialer{Deadline: k.expiry}
	switch k.plan.mode {
	case fastOpen:
		opts = append(opts, option{unix.IPPROTO_TCP, tcpFastOpenConnect, 1})
	case fallback, multipath:
		opts = nil
		d.SetMultipathTCP(true)
	}
	if from != 0 {
		client, _ := k.addrs()
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(client.Addr(), from))
		opts = append(opts, option{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1})
	}
	d.Control = k.control(opts...)
	for {
		err = k.lab.client.Do(func() (err error) {
			c, err = d.Dial("tcp", addr.String())
			return err
		})
		// The last connection's end may still be on its way.
		if from == 0 || !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.EADDRINUSE) || time.Now().After(k.expiry) {
			return c, err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// reusedFrom is what the clients' ports are above the servers' that they use again.
const reusedFrom = 10_000

func (k *task) runAccepted() error {
	_, addr := k.addrs()
	l, err := k.listen(addr)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := l.(interface{ SetDeadline(time.Time) error }).SetDeadline(k.expiry); err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	// A client that cannot go on ends the server's waiting.
	client := func(i int, from uint16) {
		c, err := k.dial(addr, from)
		if err != nil {
			k.tally.trouble(k.where, err)
			_ = l.Close()
			return
		}
		defer c.Close()
		_ = c.SetDeadline(k.expiry)
		if err := send(c, k.plan, uint64(i)); err != nil {
			k.tally.trouble(k.where, err)
		}
	}
	for i := range k.plan.times() {
		var from uint16
		if k.plan.mode == reused {
			from = k.port + reusedFrom
		}
		wg.Go(func() { client(i, from) })
		if k.plan.mode == slow {
			continue
		}
		if err := k.acceptOne(l, i); err != nil {
			return err
		}
		if from != 0 {
			wg.Wait()
		}
	}
	if k.plan.mode != slow {
		return nil
	}
	// The backlog fills meanwhile.
	time.Sleep(30 * time.Millisecond)
	for i := range k.plan.times() {
		if err := k.acceptOne(l, i); err != nil {
			return err
		}
	}
	return nil
}

// acceptOne accepts a connection, reads it and judges what was said of it.
func (k *task) acceptOne(l net.Listener, number int) error {
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	saved := savedSYN(c)
	s := k.newServer(number)
	t, ok := c.(*sockmeta.TCPConn)
	if err := c.SetDeadline(k.expiry); err != nil {
		return err
	}
	if !ok {
		if k.plan.mode == multipath {
			t = sockmeta.WrapTCP(c.(*net.TCPConn))
		} else if t, err = s.optInLate(c.(*net.TCPConn)); err != nil {
			return err
		}
	}
	return k.serve(s, t, saved)
}

func (k *task) newServer(number int) *server {
	return &server{
		wire: k.lab.wire, plan: k.plan, rng: rand.New(rand.NewPCG(k.plan.seed, 100+uint64(number))),
		fixed: k.fixed || k.plan.seed%2 == 0, stream: make([]byte, 0, k.plan.share()),
	}
}

func (k *task) serve(s *server, c *sockmeta.TCPConn, saved uint32) error {
	err := s.serve(c)
	remote, local := c.RemoteAddr().(*net.TCPAddr), c.LocalAddr().(*net.TCPAddr)
	f := k.lab.wire.find(uint16(remote.Port), uint16(local.Port))
	err = errors.Join(err, c.Close())
	if f == nil {
		return errors.Join(err, fmt.Errorf("the wire knows of no connection from %v to %v", remote, local))
	}
	s.judge(f, *k.lab.setting, saved, k.tally, k.where)
	return err
}

// savedSYN returns the tag of the SYN that opened a connection, 0 where the kernel
// has not kept it.
func savedSYN(c net.Conn) (tag uint32) {
	rc, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return 0
	}
	// Not GetsockoptString, which ends at a zero.
	var b [256]byte
	size := uint32(len(b))
	_ = rc.Control(func(fd uintptr) {
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.IPPROTO_TCP, unix.TCP_SAVED_SYN,
			uintptr(unsafe.Pointer(&b)), uintptr(unsafe.Pointer(&size)), 0)
		if errno == 0 && size >= etherSize {
			tag = binary.NativeEndian.Uint32(b[8:])
		}
	})
	return tag
}

// runDialed has the server dial.
func (k *task) runDialed() error {
	addr, _ := k.addrs()
	var l net.Listener
	err := k.lab.client.Do(func() (err error) {
		lc := net.ListenConfig{Control: k.control(option{unix.IPPROTO_TCP, unix.TCP_MAXSEG, choose(segmentSizes[:], k.plan.segment)})}
		lc.SetMultipathTCP(false)
		l, err = lc.Listen(context.Background(), "tcp", addr.String())
		return err
	})
	if err != nil {
		return err
	}
	defer l.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		c, err := l.Accept()
		if err == nil {
			_ = c.SetDeadline(k.expiry)
			err = send(c, k.plan, 0)
		}
		if err != nil {
			k.tally.trouble(k.where, err)
		}
	})
	c, err := k.dialFromServer(addr, netip.AddrPort{})
	if err != nil {
		_ = l.Close()
		return err
	}
	return k.serve(k.newServer(0), c, 0)
}

func (k *task) dialFromServer(to, from netip.AddrPort) (*sockmeta.TCPConn, error) {
	d := sockmeta.Dialer{Require: true}
	d.Deadline = k.expiry
	d.Control = k.control(k.receiveBuffer())
	if from.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(from)
	}
	var c net.Conn
	err := k.lab.server.Do(func() (err error) {
		c, err = d.Dial("tcp", to.String())
		return err
	})
	if err != nil {
		return nil, err
	}
	return c.(*sockmeta.TCPConn), c.SetDeadline(k.expiry)
}

// runCrossed has both dial at once.
func (k *task) runCrossed() error {
	client, srv := k.addrs()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		c, err := k.dial(srv, k.port)
		if err == nil {
			_ = c.SetDeadline(k.expiry)
			err = send(c, k.plan, 0)
		}
		if err != nil {
			k.tally.trouble(k.where, err)
		}
	})
	c, err := k.dialFromServer(client, srv)
	if err != nil {
		return err
	}
	return k.serve(k.newServer(0), c, 0)
}

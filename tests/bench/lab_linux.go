// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// service is the service id that the producer gives to packets to servicePort.
const (
	service     = 7
	servicePort = 4433
)

// A lab is a client and a server on one veth link. The client's sockets are in no
// cgroup with programs, the server's are where it is said.
type lab struct {
	*netlab.Pair
	cgroup     *netlab.Cgroup
	attachment *bpf.Attachment
	m          *meter
	extra      byte // addresses that the server has got besides
	closers    []func() error
}

// labs are made when they are asked for and used by all cases. With a producer all
// packets have metadata of their own, and the kernel merges none of them (GRO).
type labs struct {
	produced, bare *lab
}

func (l *labs) close() error {
	var errs []error
	for _, lab := range []*lab{l.produced, l.bare} {
		if lab != nil {
			errs = append(errs, lab.close())
		}
	}
	return errors.Join(errs...)
}

func (m *meter) produced() (*lab, error) { return m.lab(&m.labs.produced, true) }
func (m *meter) bare() (*lab, error)     { return m.lab(&m.labs.bare, false) }

func (m *meter) lab(made **lab, producer bool) (_ *lab, err error) {
	if *made != nil {
		return *made, nil
	}
	l := &lab{m: m}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	if l.Pair, err = netlab.NewPair(); err != nil {
		return nil, err
	}
	l.closers = append(l.closers, l.Pair.Close)
	if err := l.Introduce(); err != nil {
		return nil, err
	}
	if l.cgroup, err = netlab.NewCgroup("bench"); err != nil {
		return nil, err
	}
	l.closers = append(l.closers, l.cgroup.Close)
	if l.attachment, err = bpf.Attach(bpf.Options{Cgroup: l.cgroup.Path()}); err != nil {
		return nil, err
	}
	l.closers = append(l.closers, l.attachment.Close)
	if producer {
		err := l.Server.Do(func() error {
			p, err := bpf.AttachProducer(l.ServerIf, bpf.ProducerOptions{Services: map[uint16]uint32{servicePort: service}})
			if err == nil {
				l.closers = append(l.closers, p.Close)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	*made = l
	return l, nil
}

func (l *lab) close() error {
	var errs []error
	for i := len(l.closers) - 1; i >= 0; i-- {
		errs = append(errs, l.closers[i]())
	}
	return errors.Join(errs...)
}

// A place is where a server's socket is made: a cgroup, nil for one without
// programs.
type place = *netlab.Cgroup

// serve calls f in the server's namespace, and in a cgroup.
func (l *lab) serve(in place, f func() error) (err error) {
	if in != nil {
		leave, err := in.Enter()
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, leave()) }()
	}
	return l.Server.Do(f)
}

// address is one that the server listens at, by a port that the kernel chooses.
func (l *lab) address() string { return netip.AddrPortFrom(l.ServerAddr4, 0).String() }

// extraAddress gives the server one more address.
func (l *lab) extraAddress() (netip.Addr, error) {
	b := l.ServerAddr4.As4()
	l.extra++
	b[3] += l.extra
	addr := netip.AddrFrom4(b)
	return addr, netlab.AddAddr(l.Server, l.ServerIf, netip.PrefixFrom(addr, 24))
}

// udp makes a socket that has opted in.
func (l *lab) udp() (*sockmeta.UDPConn, error) {
	all, err := l.udps([]netip.AddrPort{netip.AddrPortFrom(l.ServerAddr4, 0)})
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// udps makes sockets that have opted in, one for each address.
func (l *lab) udps(addrs []netip.AddrPort) (all []*sockmeta.UDPConn, err error) {
	err = l.serve(l.cgroup, func() error {
		lc := sockmeta.ListenConfig{Require: true}
		for _, addr := range addrs {
			p, err := lc.ListenPacket(context.Background(), "udp4", addr.String())
			if err != nil {
				return err
			}
			c := p.(*sockmeta.UDPConn)
			l.m.atEnd(c.Close)
			if err := queueAll(c); err != nil {
				return err
			}
			if !c.Support().Mapped {
				return fmt.Errorf("records are not mapped: %v", c.Support())
			}
			all = append(all, c)
		}
		return nil
	})
	return all, err
}

// plainUDP makes a socket of package net.
func (l *lab) plainUDP(in place) (*net.UDPConn, error) {
	all, err := l.plainUDPs(in, []netip.AddrPort{netip.AddrPortFrom(l.ServerAddr4, 0)})
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// plainUDPs makes sockets of package net, one for each address.
func (l *lab) plainUDPs(in place, addrs []netip.AddrPort) (all []*net.UDPConn, err error) {
	err = l.serve(in, func() error {
		for _, addr := range addrs {
			c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(addr))
			if err != nil {
				return err
			}
			l.m.atEnd(c.Close)
			if err := queueAll(c); err != nil {
				return err
			}
			all = append(all, c)
		}
		return nil
	})
	return all, err
}

// queueAll makes room for a batch of datagrams: some kernels count a page for each
// that native XDP has seen.
func queueAll(c syscall.Conn) error {
	return control(c, func(fd int) error {
		return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<20))
	})
}

// listenTCP makes a listener that has opted in.
func (l *lab) listenTCP(addr string) (c *sockmeta.TCPListener, err error) {
	err = l.serve(l.cgroup, func() error {
		lc := sockmeta.ListenConfig{Require: true}
		p, err := lc.Listen(context.Background(), "tcp4", addr)
		if err == nil {
			c = p.(*sockmeta.TCPListener)
			l.m.atEnd(c.Close)
		}
		return err
	})
	return c, err
}

// plainListenTCP makes one of package net, without Multipath TCP, which sockmeta
// turns off, too.
func (l *lab) plainListenTCP(in place, addr string) (c *net.TCPListener, err error) {
	err = l.serve(in, func() error {
		var lc net.ListenConfig
		lc.SetMultipathTCP(false)
		p, err := lc.Listen(context.Background(), "tcp4", addr)
		if err == nil {
			c = p.(*net.TCPListener)
			l.m.atEnd(c.Close)
		}
		return err
	})
	return c, err
}

// dial connects a socket of the client.
func (l *lab) dial(addr net.Addr) (c net.Conn, err error) {
	err = l.Client.Do(func() (err error) {
		c, err = net.Dial(addr.Network(), addr.String())
		return err
	})
	if err == nil {
		l.m.atEnd(c.Close)
	}
	return c, err
}

// connect returns both ends of a connection to a listener.
func (l *lab) connect(to net.Listener) (client *net.TCPConn, server net.Conn, err error) {
	c, err := l.dial(to.Addr())
	if err != nil {
		return nil, nil, err
	}
	if server, err = to.Accept(); err != nil {
		return nil, nil, err
	}
	l.m.atEnd(server.Close)
	return c.(*net.TCPConn), server, nil
}

// tcp returns both ends of a connection whose server has opted in.
func (l *lab) tcp() (client *net.TCPConn, server *sockmeta.TCPConn, err error) {
	to, err := l.listenTCP(l.address())
	if err != nil {
		return nil, nil, err
	}
	client, c, err := l.connect(to)
	if err != nil {
		return nil, nil, err
	}
	return client, c.(*sockmeta.TCPConn), nil
}

// plainTCP returns both ends of a connection without metadata.
func (l *lab) plainTCP(in place) (client, server *net.TCPConn, err error) {
	to, err := l.plainListenTCP(in, l.address())
	if err != nil {
		return nil, nil, err
	}
	client, c, err := l.connect(to)
	if err != nil {
		return nil, nil, err
	}
	return client, c.(*net.TCPConn), nil
}

// empty makes a cgroup with one program that does nothing: what the kernel's hook
// costs with any program.
func (l *lab) empty(typ ebpf.ProgramType, at ebpf.AttachType) (place, *ebpf.Program, error) {
	cgroup, err := netlab.NewCgroup("bench-empty")
	if err != nil {
		return nil, nil, err
	}
	l.m.atEnd(cgroup.Close)
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name:         "empty",
		Type:         typ,
		AttachType:   at,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
		License:      "Dual BSD/GPL",
	})
	if err != nil {
		return nil, nil, err
	}
	l.m.atEnd(prog.Close)
	attached, err := link.AttachCgroup(link.CgroupOptions{Path: cgroup.Path(), Attach: at, Program: prog})
	if err != nil {
		return nil, nil, err
	}
	l.m.atEnd(attached.Close)
	return cgroup, prog, nil
}

// control calls f with the socket's descriptor.
func control(c syscall.Conn, f func(fd int) error) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	cerr := rc.Control(func(fd uintptr) { err = f(int(fd)) })
	return errors.Join(cerr, err)
}

// A queue is a receive queue that is filled before it is read.
type queue struct {
	conn packetConn
	fill func() error // on the sender's CPU
	raw  syscall.RawConn
	// full is how large it is then, as it counts against the receive buffer.
	full int
}

// packetConn is what *net.UDPConn and *sockmeta.UDPConn have in common.
type packetConn interface {
	net.PacketConn
	syscall.Conn
}

// wait is how long packets may take that are lost.
const wait = 2 * time.Second

// filler returns a function that fills a socket's queue by send, on the sender's
// CPU, and returns when all is in it. drain reads what send sends.
func (m *meter) filler(c packetConn, send, drain func() error) (fill func() error, err error) {
	q := &queue{conn: c, fill: send}
	if q.raw, err = c.SyscallConn(); err != nil {
		return nil, err
	}
	if err := m.sender.do(send); err != nil {
		return nil, err
	}
	// Time enough for all to arrive: then the queue's size is known, but for
	// what differs from packet to packet.
	time.Sleep(100 * time.Millisecond)
	if q.full, err = q.size(); err != nil {
		return nil, err
	}
	q.full -= q.full / (batchSize / 2)
	if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return nil, err
	}
	if err := drain(); err != nil {
		return nil, fmt.Errorf("what was sent is not all there: %w", err)
	}
	return func() error { return q.refill(m) }, nil
}

func (q *queue) refill(m *meter) error {
	deadline := time.Now().Add(wait)
	// A reader that waits in vain fails rather than hangs.
	if err := q.conn.SetReadDeadline(deadline.Add(wait)); err != nil {
		return err
	}
	if err := m.sender.do(q.fill); err != nil {
		return err
	}
	for {
		n, err := q.size()
		if err != nil {
			return err
		}
		if n >= q.full {
			spin(20 * time.Microsecond) // for the last ones
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d bytes queued, want %d: %w", n, q.full, os.ErrDeadlineExceeded)
		}
	}
}

// spin waits without giving the CPU away, which would cool its caches.
func spin(d time.Duration) {
	for start := time.Now(); time.Since(start) < d; {
	}
}

func (q *queue) size() (n int, err error) {
	cerr := q.raw.Control(func(fd uintptr) {
		// The first number of SO_MEMINFO is SK_MEMINFO_RMEM_ALLOC.
		n, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MEMINFO)
	})
	return n, errors.Join(cerr, err)
}

// singles returns a function that sends a batch of small datagrams to a socket.
func (l *lab) singles(to packetConn) (func() error, error) {
	client, err := l.dial(to.LocalAddr())
	if err != nil {
		return nil, err
	}
	payload := make([]byte, 64)
	return each(func() error {
		_, err := client.Write(payload)
		return err
	}), nil
}

// waiting returns a contender that reads a batch of datagrams, which are in its
// queue already.
func (l *lab) waiting(name string, c packetConn, read func() error) (contender, error) {
	send, err := l.singles(c)
	if err != nil {
		return contender{}, err
	}
	fill, err := l.m.filler(c, send, read)
	if err != nil {
		return contender{}, fmt.Errorf("%s: %w", name, err)
	}
	return contender{name: name, prepare: fill, batch: read}, nil
}

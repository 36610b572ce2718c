// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

func init() { children["takeSeats"] = takeSeats }

// boundsLab is a cgroup in which so many sockets may have metadata.
type boundsLab struct {
	ns *netlab.Namespace
	cg *netlab.Cgroup
	a  *bpf.Attachment
}

func newBoundsLab(t *testing.T, opts bpf.Options) *boundsLab {
	t.Helper()
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	lab := &boundsLab{ns: testutil.Namespace(t), cg: testutil.EnterCgroup(t)}
	opts.Cgroup = lab.cg.Path()
	var err error
	lab.a, err = bpf.Attach(opts)
	must(t, err)
	t.Cleanup(func() { _ = lab.a.Close() })
	return lab
}

// expect waits for the sockets that are counted: the kernel tells of the end of
// connections when it comes to it.
func (lab *boundsLab) expect(t *testing.T, what string, want int) {
	t.Helper()
	var s bpf.Sockets
	for end := time.Now().Add(udpPatience); ; time.Sleep(time.Millisecond) {
		var err error
		s, err = lab.a.Sockets()
		must(t, err)
		if s.Now == want || time.Now().After(end) {
			break
		}
	}
	users := 0
	for _, n := range s.Users {
		users += n
	}
	if s.Now != want || users != want {
		t.Fatalf("%s: %+v, want %d sockets", what, s, want)
	}
}

// settle waits until what was closed counts no more.
func (lab *boundsLab) settle(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(udpPatience); ; time.Sleep(10 * time.Millisecond) {
		s, err := lab.a.Sockets()
		must(t, err)
		if s.Closed == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("still counts: %+v", s)
		}
	}
}

func (lab *boundsLab) counts(t *testing.T) bpf.Counts {
	t.Helper()
	c, err := lab.a.Counts()
	must(t, err)
	return c
}

func (lab *boundsLab) udp(t *testing.T) *sockmeta.UDPConn {
	t.Helper()
	var c *sockmeta.UDPConn
	must(t, lab.ns.Do(func() (err error) {
		c, err = sockmeta.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		return err
	}))
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func (lab *boundsLab) listen(t *testing.T) *sockmeta.TCPListener {
	t.Helper()
	var l *sockmeta.TCPListener
	must(t, lab.ns.Do(func() (err error) {
		l, err = sockmeta.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		return err
	}))
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// dial dials without metadata.
func (lab *boundsLab) dial(t *testing.T, l net.Listener) *net.TCPConn {
	t.Helper()
	var c net.Conn
	must(t, lab.ns.Do(func() (err error) {
		c, err = net.Dial("tcp4", l.Addr().String())
		return err
	}))
	t.Cleanup(func() { _ = c.Close() })
	return c.(*net.TCPConn)
}

// wantFull wants an error that names the option which would help.
func wantFull(t *testing.T, err error, option string, errno unix.Errno) {
	t.Helper()
	if !errors.Is(err, sockmeta.ErrNotSupported) || !errors.Is(err, bpf.ErrTooManySockets) ||
		!errors.Is(err, errno) || !strings.Contains(err.Error(), option) {
		t.Errorf("%v, want one that names %s", err, option)
	}
}

// TestLetInBoundUDP opens one socket more than there may be: it works, without
// metadata, and has it when another goes.
func TestLetInBoundUDP(t *testing.T) {
	for _, tt := range []struct {
		name   string
		opts   bpf.Options
		option string
		errno  unix.Errno
	}{
		{"attachment", bpf.Options{MaxSockets: 3, MaxSocketsPerUser: 9}, "-max-sockets)", unix.ENFILE},
		{"user", bpf.Options{MaxSockets: 9, MaxSocketsPerUser: 3}, "-max-sockets-per-user)", unix.EDQUOT},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lab := newBoundsLab(t, tt.opts)
			var conns []*sockmeta.UDPConn
			for range 3 {
				c := lab.udp(t)
				must(t, c.Support().Err())
				conns = append(conns, c)
			}
			lab.expect(t, "all", 3)
			over := lab.udp(t)
			wantFull(t, over.Support().Err(), tt.option, tt.errno)
			var md sockmeta.Metadata
			must(t, md.SetUint32(sockmeta.KeyUser, 1))
			to := over.LocalAddr().(*net.UDPAddr).AddrPort()
			if n, err := over.WriteMetadata([]byte("x"), &md, to); n != 1 || !sockmeta.IsMetadataError(err) {
				t.Errorf("%d, %v", n, err)
			}
			must(t, over.SetReadDeadline(time.Now().Add(udpPatience)))
			n, _, err := over.ReadMetadata(make([]byte, 9), &md)
			if n != 1 {
				t.Errorf("%d bytes", n)
			}
			wantFull(t, err, tt.option, tt.errno)
			lab.expect(t, "one over", 3)
			if c := lab.counts(t); (c.Full == 0) == (c.UserFull == 0) {
				t.Errorf("%+v", c)
			}
			// Those who have a seat keep it, by other wrappers too.
			must(t, conns[0].Support().Err())
			must(t, sockmeta.WrapUDP(conns[0].NetConn().(*net.UDPConn)).Support().Err())
			lab.expect(t, "wrapped anew", 3)

			must(t, conns[0].Close())
			lab.expect(t, "closed", 2)
			lab.settle(t)
			must(t, sockmeta.WrapUDP(over.NetConn().(*net.UDPConn)).Support().Err())
			lab.expect(t, "opted in late", 3)
			must(t, errors.Join(conns[1].Close(), conns[2].Close(), over.Close()))
			lab.expect(t, "all closed", 0)
		})
	}
}

// TestLetInBoundChurn closes sockets as fast as it opens them: the kernel frees what it
// kept at them later.
func TestLetInBoundChurn(t *testing.T) {
	const most = 8
	lab := newBoundsLab(t, bpf.Options{MaxSockets: most})
	began, got := time.Now(), 0
	for i := 0; i < 100*most; i++ {
		c := lab.udp(t)
		if c.Support().Err() == nil {
			got++
		}
		must(t, c.Close())
	}
	// As many in each second, of the programs' seconds, and in those that had begun.
	if times := int(time.Since(began)/(1<<30)) + 2; got < most/2 || got > times*most {
		t.Errorf("%d sockets had metadata in %d times of a second", got, times)
	}
	lab.settle(t)
	must(t, lab.udp(t).Support().Err())
}

// TestLetInBoundPlaces has one user take all places that another's number leads to.
func TestLetInBoundPlaces(t *testing.T) {
	lab := newBoundsLab(t, bpf.Options{})
	place := func(uid uint32) uint32 { return uid * 2654435761 >> 16 & 2047 }
	const victim = 1000
	taken := make(map[uint32]bool)
	for uid := uint32(100000); len(taken) < 8; uid++ {
		// Of its eight places a user takes the first that is free.
		if at := place(uid) - place(victim); at < 8 && !taken[at] {
			taken[at] = true
			lab.owned(t, uid)
		}
	}
	c := lab.owned(t, victim)
	s, err := lab.a.Sockets()
	must(t, err)
	if s.Now != 9 || s.Others != 1 || len(s.Users) != 8 {
		t.Errorf("%+v", s)
	}
	must(t, c.Close())
	for end := time.Now().Add(udpPatience); s.Others != 0; {
		s, err = lab.a.Sockets()
		must(t, err)
		if time.Now().After(end) {
			t.Fatalf("%+v", s)
		}
	}
}

// owned opens a socket of a user that has opted in.
func (lab *boundsLab) owned(t *testing.T, uid uint32) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	must(t, lab.ns.Do(func() (err error) {
		c, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		return err
	}))
	t.Cleanup(func() { _ = c.Close() })
	withFD(t, c, func(fd int) error { return unix.Fchown(fd, int(uid), -1) })
	must(t, sockmeta.WrapUDP(c).Support().Err())
	return c
}

// TestLetInBoundKinds has sockets that have UDP's and TCP's protocol numbers and are
// neither's: the kernel keeps other things behind their struct sock.
func TestLetInBoundKinds(t *testing.T) {
	lab := newBoundsLab(t, bpf.Options{})
	for _, kind := range []struct{ family, typ, protocol int }{
		{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_XFRM},
		{unix.AF_NETLINK, unix.SOCK_DGRAM, unix.NETLINK_XFRM},
		{unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_TCP},
		{unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_UDP},
		{unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_TCP},
		{unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_UDP},
		{unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP},
		{unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE},
		{unix.AF_UNIX, unix.SOCK_STREAM, 0},
	} {
		must(t, lab.ns.Do(func() error {
			fd, err := unix.Socket(kind.family, kind.typ|unix.SOCK_CLOEXEC, kind.protocol)
			if err != nil {
				// ICMP takes a group, and new kernels have no UDP-Lite.
				t.Logf("%v: %v", kind, err)
				return nil
			}
			defer unix.Close(fd)
			if err := bpf.EnableSocket(fd, 0); !errors.Is(err, sockmeta.ErrNotSupported) {
				t.Errorf("%v opts in: %v", kind, err)
			}
			return nil
		}))
	}
	lab.expect(t, "all", 0)
}

// TestLetInBoundHeld has a socket that somebody else holds, too: it goes when the last
// one closes it.
func TestLetInBoundHeld(t *testing.T) {
	lab := newBoundsLab(t, bpf.Options{})
	c := lab.udp(t)
	f, err := c.File()
	must(t, err)
	must(t, c.Close())
	lab.expect(t, "held", 1)
	must(t, f.Close())
	lab.expect(t, "closed", 0)
}

// TestLetInBoundTCP counts connections in all ways that they come and go.
func TestLetInBoundTCP(t *testing.T) {
	for name, run := range map[string]func(t *testing.T, lab *boundsLab, l *sockmeta.TCPListener){
		"closed here": func(t *testing.T, lab *boundsLab, l *sockmeta.TCPListener) {
			lab.dial(t, l)
			c := value(l.AcceptTCP())(t)
			lab.expect(t, "accepted", 2)
			must(t, c.Close())
		},
		"closed there, read to the end": func(t *testing.T, lab *boundsLab, l *sockmeta.TCPListener) {
			out := lab.dial(t, l)
			must1(t)(out.Write([]byte("x")))
			c := value(l.AcceptTCP())(t)
			must(t, out.Close())
			if b, err := io.ReadAll(c); err != nil || string(b) != "x" {
				t.Fatal(b, err)
			}
			if _, err := c.Metadata(); err != nil {
				t.Error(err)
			}
			lab.expect(t, "half closed", 2)
			must(t, c.Close())
		},
		"reset while held": func(t *testing.T, lab *boundsLab, l *sockmeta.TCPListener) {
			out := lab.dial(t, l)
			c := value(l.AcceptTCP())(t)
			must(t, out.SetLinger(0))
			must(t, out.Close())
			if _, err := io.ReadAll(c); !errors.Is(err, unix.ECONNRESET) {
				t.Fatal(err)
			}
			lab.expect(t, "reset", 2)
			must(t, c.Close())
		},
		"closed with data unread": func(t *testing.T, lab *boundsLab, l *sockmeta.TCPListener) {
			out := lab.dial(t, l)
			must1(t)(out.Write([]byte("x")))
			c := value(l.AcceptTCP())(t)
			must(t, c.SetReadDeadline(time.Now().Add(udpPatience)))
			rc := value(c.SyscallConn())(t)
			must(t, rc.Read(func(fd uintptr) bool {
				n, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK)
				return n == 1 && err == nil
			}))
			must(t, c.Close())
		},
		"never accepted": func(t *testing.T, lab *boundsLab, l *sockmeta.TCPListener) {
			for range 3 {
				lab.dial(t, l)
			}
			lab.expect(t, "waiting", 4)
		},
		"reset and never accepted": func(t *testing.T, lab *boundsLab, l *sockmeta.TCPListener) {
			out := lab.dial(t, l)
			lab.expect(t, "waiting", 2)
			must(t, out.SetLinger(0))
			must(t, out.Close())
			lab.expect(t, "reset", 1)
		},
		"reset and accepted": func(t *testing.T, lab *boundsLab, l *sockmeta.TCPListener) {
			out := lab.dial(t, l)
			lab.expect(t, "waiting", 2)
			must(t, out.SetLinger(0))
			must(t, out.Close())
			lab.expect(t, "reset", 1)
			c := value(l.AcceptTCP())(t)
			if err := c.Support().Err(); !errors.Is(err, sockmeta.ErrNotSupported) || !strings.Contains(err.Error(), "reset before") {
				t.Error(err)
			}
			must(t, c.Close())
			lab.expect(t, "closed", 1)
		},
		"dialed": func(t *testing.T, lab *boundsLab, l *sockmeta.TCPListener) {
			var out net.Conn
			must(t, lab.ns.Do(func() (err error) {
				out, err = sockmeta.Dial("tcp4", l.Addr().String())
				return err
			}))
			c := value(l.AcceptTCP())(t)
			lab.expect(t, "both ends", 3)
			must(t, out.Close())
			must(t, c.Close())
		},
		"refused": func(t *testing.T, lab *boundsLab, l *sockmeta.TCPListener) {
			must(t, l.Close())
			must(t, lab.ns.Do(func() error {
				if c, err := sockmeta.Dial("tcp4", l.Addr().String()); err == nil {
					_ = c.Close()
					return errors.New("connected to nobody")
				}
				return nil
			}))
		},
		"opted in late": func(t *testing.T, lab *boundsLab, l *sockmeta.TCPListener) {
			out := sockmeta.WrapTCP(lab.dial(t, l))
			must(t, out.Support().Err())
			lab.expect(t, "waiting", 3)
			must(t, out.Close())
		},
		"closed while it sends": func(t *testing.T, lab *boundsLab, l *sockmeta.TCPListener) {
			out := lab.dial(t, l)
			c := value(l.AcceptTCP())(t)
			must(t, c.SetWriteDeadline(time.Now().Add(100*time.Millisecond)))
			for err := error(nil); err == nil; {
				_, err = c.Write(make([]byte, 1<<16))
			}
			// The kernel goes on for it, and so its records do.
			must(t, c.Close())
			lab.expect(t, "closed", 2)
			must(t, out.SetLinger(0))
			must(t, out.Close())
			lab.expect(t, "reset", 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			lab := newBoundsLab(t, bpf.Options{})
			l := lab.listen(t)
			lab.expect(t, "listener", 1)
			run(t, lab, l)
			_ = l.Close()
			lab.expect(t, "the end", 0)
		})
	}
}

// TestLetInBoundAccepted accepts one connection more than there may be.
func TestLetInBoundAccepted(t *testing.T) {
	lab := newBoundsLab(t, bpf.Options{MaxSockets: 2, MaxSocketsPerUser: 9})
	l := lab.listen(t)
	lab.dial(t, l)
	in := value(l.AcceptTCP())(t)
	must(t, in.Support().Err())
	out := lab.dial(t, l)
	over := value(l.AcceptTCP())(t)
	must1(t)(out.Write([]byte("x")))
	must(t, over.SetReadDeadline(time.Now().Add(udpPatience)))
	must1(t)(over.Read(make([]byte, 1)))
	_, err := over.Metadata()
	wantFull(t, err, "-max-sockets)", unix.ENFILE)
	wantFull(t, over.Support().Err(), "-max-sockets)", unix.ENFILE)
	var md sockmeta.Metadata
	must(t, md.SetUint32(sockmeta.KeyUser, 1))
	wantFull(t, over.SetMetadata(&md), "-max-sockets)", unix.ENFILE)
	lab.expect(t, "one over", 2)
	if c := lab.counts(t); c.Full != 1 || c.UserFull != 0 {
		t.Errorf("%+v", c)
	}
	must(t, in.Close())
	lab.expect(t, "one closed", 1)
	lab.settle(t)
	if err := over.Support().Err(); !errors.Is(err, sockmeta.ErrNotSupported) || !strings.Contains(err.Error(), "when it came") {
		t.Error(err)
	}
	// It may opt in now.
	must(t, sockmeta.WrapTCP(over.NetConn().(*net.TCPConn)).Support().Err())
	lab.expect(t, "opted in late", 2)
	must(t, over.Close())
	must(t, l.Close())
	lab.expect(t, "all closed", 0)
}

// TestLetInBoundUsers has two users take all that they can get.
func TestLetInBoundUsers(t *testing.T) {
	lab := newBoundsLab(t, bpf.Options{MaxSockets: 100, MaxSocketsPerUser: 10})
	ours := lab.udp(t)
	for _, uid := range []uint32{nobody, nobody - 1} {
		out, err := testutil.RunChild(t, "takeSeats", testutil.ChildOptions{UID: uid, GID: uid, NoNewPrivs: true, Netns: lab.ns})
		if err != nil || strings.TrimSpace(string(out)) != "10" {
			t.Errorf("user %d: %s, %v", uid, out, err)
		}
		// They are as many again for the next one.
		lab.expect(t, fmt.Sprint("user ", uid), 1)
	}
	must(t, ours.Support().Err())
}

// takeSeats opens sockets of all kinds, and prints how many have metadata.
func takeSeats() error {
	n := 0
	for i := range 30 {
		var support sockmeta.Support
		if i%2 == 0 {
			c, err := sockmeta.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				return err
			}
			support = c.Support()
			if support.Err() == nil {
				var md sockmeta.Metadata
				md.SetPriority(1)
				if _, err := c.WriteMetadata([]byte("x"), &md, netip.MustParseAddrPort("127.0.0.1:9")); err != nil {
					return err
				}
			}
		} else {
			l, err := sockmeta.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				return err
			}
			support = l.Support()
		}
		if support.Err() == nil {
			n++
		}
	}
	fmt.Println(n)
	return nil
}

// value returns the value of a call that may not fail.
func value[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		must(t, err)
		return v
	}
}

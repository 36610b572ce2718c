// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/abi"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// A truthLab has a hand-written peer, and a server whose answers are compared with
// what the peer knows.
type truthLab struct {
	*tcpPeer
	ln *sockmeta.TCPListener
}

func newTruthLab(t *testing.T) *truthLab {
	t.Helper()
	p := newTCPPeer(t)
	lab := &tcpLab{p.Pair, t}
	return &truthLab{p, lab.listen(sockmeta.ListenConfig{})}
}

// A truthConn is both ends of a connection.
type truthConn struct {
	*handConn
	server *sockmeta.TCPConn
}

func (lab *truthLab) accept(h *handConn) *truthConn {
	lab.t.Helper()
	return &truthConn{h, (&tcpLab{lab.Pair, lab.t}).accept(lab.ln)}
}

// arrived waits until n bytes can be read. What was sent before them has been
// through the server's TCP then, on the same queue.
func (c *truthConn) arrived(n int) {
	c.t.Helper()
	waitUnread(c.t, c.server, n)
}

func waitUnread(t *testing.T, c syscall.Conn, n int) {
	t.Helper()
	rc, err := c.SyscallConn()
	must(t, err)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		var have int
		cerr := rc.Control(func(fd uintptr) { have, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
		must(t, errors.Join(cerr, err))
		if have >= n {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d bytes have arrived, want %d", have, n)
		}
	}
}

// wants reads n bytes and compares their metadata.
func (c *truthConn) wants(n int, tag uint32, flags cmsg.Flags) {
	c.t.Helper()
	must1(c.t)(io.ReadFull(c.server, make([]byte, n)))
	md, err := c.server.Metadata()
	c.compare("metadata", md, err, tag, flags)
}

func (c *truthConn) compare(what string, md sockmeta.Metadata, err error, tag uint32, flags cmsg.Flags) {
	c.t.Helper()
	if got := tagOf(c.t, md, err); got != tag || md.Flags() != flags {
		c.t.Errorf("%s is of segment %d, flags %v, want segment %d, flags %v", what, got, md.Flags(), tag, flags)
	}
}

// wantsOneOf reads n bytes that any of several segments may have brought: which of
// them is the likely one depends on the order in which the device hands them on.
func (c *truthConn) wantsOneOf(n int, tags []uint32) {
	c.t.Helper()
	must1(c.t)(io.ReadFull(c.server, make([]byte, n)))
	md, err := c.server.Metadata()
	if got := tagOf(c.t, md, err); !slices.Contains(tags, got) || md.Flags() != ambiguous {
		c.t.Errorf("metadata is of segment %d, flags %v, want one of %d, flags %v", got, md.Flags(), tags, ambiguous)
	}
}

// wantsOrUnproven compares the metadata of what was read, if it is to be relied on.
func (c *truthConn) wantsOrUnproven(tag uint32) {
	c.t.Helper()
	md, err := c.server.Metadata()
	if got := tagOf(c.t, md, err); got != tag && !md.Flags().Has(cmsg.FlagUnproven) {
		c.t.Errorf("metadata is of segment %d, flags %v, want segment %d", got, md.Flags(), tag)
	}
}

// loses reads n bytes, whose metadata is to be lost.
func (c *truthConn) loses(n int) {
	c.t.Helper()
	must1(c.t)(io.ReadFull(c.server, make([]byte, n)))
	_, err := c.server.Metadata()
	wantError(c.t, err, sockmeta.ErrOverrun)
}

// small sends segments of ten bytes each from off on, and returns their tags.
func (c *handConn) small(off, segments int) (tags []uint32) {
	c.t.Helper()
	for i := range segments {
		tags = append(tags, c.data(off+10*i, fmt.Sprintf("segment%03d", i)))
	}
	return tags
}

const ambiguous = cmsg.FlagRepeated | cmsg.FlagUnproven

// TestTruthTCP sends what TCP drops, what it has already, and what it may have got
// from several segments. Each answer is right, or says that it may not be.
func TestTruthTCP(t *testing.T) {
	const unread = 20
	long := strings.Repeat("X", unread*10+50)
	for _, tt := range []struct {
		name  string
		tsval uint32
		run   func(c *truthConn)
	}{
		{"retransmission with new bytes behind", 0, func(c *truthConn) {
			tags := c.small(0, unread)
			again := c.data(0, strings.Repeat("r", unread*10)+"new")
			c.arrived(unread*10 + 3)
			for _, tag := range tags {
				c.wants(10, tag, 0)
			}
			c.wants(3, again, 0)
		}},
		{"retransmission after others have left the ring", 0, func(c *truthConn) {
			tags := c.small(0, 2*unread)
			c.data(0, strings.Repeat("r", 2*unread*10))
			c.arrived(2 * unread * 10)
			for _, tag := range tags {
				c.wants(10, tag, 0)
			}
		}},
		{"bad checksum over unread bytes", 0, func(c *truthConn) {
			tags := c.small(0, unread)
			s := c.segment(0, long)
			s.badSum = true
			c.send(s)
			last := c.data(unread*10, "end")
			c.arrived(unread*10 + 3)
			for _, tag := range tags {
				c.wants(10, tag, 0)
			}
			// As far as anybody can see, either may have brought these.
			c.wants(3, last, ambiguous)
		}},
		{"acknowledges what was never sent", 0, func(c *truthConn) {
			tags := c.small(0, unread)
			s := c.segment(0, long)
			s.ack += 1 << 28
			c.send(s)
			last := c.data(unread*10, "end")
			c.arrived(unread*10 + 3)
			for _, tag := range tags {
				c.wants(10, tag, 0)
			}
			c.wants(3, last, ambiguous)
		}},
		{"spoofed ahead of the real one", 0, func(c *truthConn) {
			s := c.segment(0, "spoofed...")
			s.ack += 1 << 28
			c.send(s)
			real := c.data(0, "real......")
			c.arrived(10)
			c.wants(10, real, ambiguous)
			c.wants(10, c.data(10, "more......"), 0)
		}},
		{"outdated timestamp ahead of the real one", 5000, func(c *truthConn) {
			s := c.segment(0, "spoofed...")
			s.tsval = 10
			c.send(s)
			real := c.data(0, "real......")
			c.arrived(10)
			c.wants(10, real, ambiguous)
		}},
		{"spoofed outside the window", 0, func(c *truthConn) {
			for i := range 600 {
				s := c.segment(1<<30+i, "far")
				c.send(s)
				s = c.segment(-1<<30-i, "old")
				c.send(s)
			}
			tag := c.data(0, "real......")
			c.arrived(10)
			c.wants(10, tag, 0)
		}},
		{"two segments out of order with the same bytes", 0, func(c *truthConn) {
			tags := []uint32{c.data(10, "aaaaaaaaaa"), c.data(10, "bbbbbbbbbb")}
			hole := c.data(0, "hole......")
			c.arrived(20)
			c.wants(10, hole, 0)
			c.wantsOneOf(10, tags)
		}},
		{"a hole that is filled from before it", 0, func(c *truthConn) {
			part := c.data(10, "aaaaaaaaaa")
			whole := c.data(0, "bbbbbbbbbbbbbbbbbbbb")
			c.arrived(20)
			c.wants(10, whole, 0)
			c.wantsOneOf(10, []uint32{part, whole})
		}},
		{"probes bring nothing", 0, func(c *truthConn) {
			tag := c.data(0, "0123456789")
			c.data(9, "X")
			c.data(8, "")
			c.arrived(10)
			c.wants(10, tag, 0)
		}},
		{"a FIN that TCP drops", 0, func(c *truthConn) {
			s := c.segment(0, "")
			s.flags |= finFlag
			s.ack += 1 << 28
			c.send(s)
			a, b := c.data(0, "A"), c.data(1, "B")
			c.arrived(2)
			c.wants(1, a, ambiguous)
			c.wants(1, b, 0)
		}},
		{"FINs in the middle", 0, func(c *truthConn) {
			var tags []uint32
			for i, payload := range []string{"a", "b", "c"} {
				s := c.segment(10+2*i, payload)
				s.flags |= finFlag
				tags = append(tags, c.send(s))
			}
			hole := c.data(0, "0123456789")
			c.arrived(10)
			c.wants(10, hole, 0)
			c.wants(1, tags[0], 0)
			// TCP may hand them out, and count as if the FINs had no numbers.
			for range tags[1:] {
				if _, err := c.server.Read(make([]byte, 1)); err == io.EOF {
					return
				}
				md, err := c.server.Metadata()
				if tagOf(c.t, md, err); !md.Flags().Has(cmsg.FlagUnproven) {
					c.t.Errorf("metadata of what came behind a FIN is %v", &md)
				}
			}
		}},
		{"an urgent byte that is not read", 0, func(c *truthConn) {
			tag := c.data(0, "0123456789")
			c.urgent(10, "U")
			s := c.segment(11, "")
			s.flags |= finFlag
			c.send(s)
			c.arrived(10)
			c.wants(10, tag, 0)
			if n, err := c.server.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				c.t.Fatalf("read %d, %v", n, err)
			}
			c.wantsOrUnproven(tag)
		}},
		{"an urgent byte after the other", 0, func(c *truthConn) {
			tag := c.data(0, "0123456789")
			c.urgent(10, "U")
			c.arrived(10)
			c.wants(10, tag, 0)
			c.urgent(11, "V")
			c.wantsOrUnproven(tag)
			tag = c.data(12, "more")
			c.wants(4, tag, 0)
		}},
		{"disconnected with bytes unread", 0, func(c *truthConn) {
			tag := c.data(0, "0123456789")
			c.data(10, "not read")
			c.arrived(18)
			c.wants(10, tag, 0)
			rc, err := c.server.SyscallConn()
			must(c.t, err)
			must(c.t, errors.Join(rc.Control(func(fd uintptr) {
				to := unix.RawSockaddr{Family: unix.AF_UNSPEC}
				if _, _, e := unix.Syscall(unix.SYS_CONNECT, fd, uintptr(unsafe.Pointer(&to)), unsafe.Sizeof(to)); e != 0 {
					err = e
				}
			}), err))
			_, err = c.server.Metadata()
			wantError(c.t, err, sockmeta.ErrNoMetadata)
		}},
		{"a FIN and the end", 0, func(c *truthConn) {
			tag := c.data(0, "0123456789")
			s := c.segment(10, "")
			s.flags |= finFlag
			fin := c.send(s)
			c.arrived(10)
			c.wants(10, tag, 0)
			if n, err := c.server.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				c.t.Fatalf("read %d, %v", n, err)
			}
			md, err := c.server.Metadata()
			c.compare("metadata after the end", md, err, tag, 0)
			md, err = c.server.LatestMetadata()
			c.compare("latest", md, err, fin, 0)
		}},
		{"a reset that TCP ignores", 0, func(c *truthConn) {
			s := c.segment(5, "")
			s.flags = rstFlag
			c.send(s)
			tag := c.data(0, "0123456789")
			c.arrived(10)
			c.wants(10, tag, 0)
		}},
		{"latest is not what TCP drops", 0, func(c *truthConn) {
			tag := c.data(0, "0123456789")
			s := c.segment(10, "")
			s.ack += 1 << 28
			c.send(s)
			c.arrived(10)
			md, err := c.server.LatestMetadata()
			// Or the acknowledgement has not come to the filter yet.
			if got := tagOf(c.t, md, err); got != tag {
				c.t.Errorf("latest is segment %d, flags %v, want %d", got, md.Flags(), tag)
			}
		}},
		{"latest without payload is unproven", 0, func(c *truthConn) {
			c.data(0, "0123456789")
			tag := c.data(10, "")
			c.arrived(10)
			for end := time.Now().Add(10 * time.Second); ; {
				md, err := c.server.LatestMetadata()
				if tagOf(c.t, md, err) == tag {
					c.compare("latest", md, err, tag, cmsg.FlagUnproven)
					return
				}
				if time.Now().After(end) {
					c.t.Fatalf("latest is %v", &md)
				}
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lab := newTruthLab(t)
			c := lab.accept(lab.dial(40000, tt.tsval))
			md, err := c.server.OpeningMetadata()
			c.compare("opening", md, err, c.opening, 0)
			tt.run(c)
		})
	}
}

// TestTruthTCPOverrun has more segments wait than there is room for, and what TCP
// drops over all of them.
func TestTruthTCPOverrun(t *testing.T) {
	p := newTCPPeer(t)
	const slots = 64
	a, err := bpf.Attach(bpf.Options{SlotsPerCPU: slots})
	must(t, err)
	defer a.Close()
	lab := &truthLab{p, (&tcpLab{p.Pair, t}).listen(sockmeta.ListenConfig{})}
	c := lab.accept(lab.dial(40000, 0))
	// SOCKMETA_TCP_RING, and all slots of the host.
	const ring = 16
	segments := ring + int(a.Info().Slots) + 20
	tags := c.small(0, segments)
	s := c.segment(0, strings.Repeat("X", 1400))
	s.badSum = true
	c.send(s)
	c.arrived(segments * 10)
	for range 20 {
		c.loses(10)
	}
	rest := tags[20 : segments-ring-slots]
	for range rest {
		must1(t)(io.ReadFull(c.server, make([]byte, 10)))
	}
	for _, tag := range tags[segments-ring-slots:] {
		c.wants(10, tag, 0)
	}
}

// TestTruthTCPHeaders has more headers in front of a segment than a program would
// walk along.
func TestTruthTCPHeaders(t *testing.T) {
	lab := newTruthLab(t)
	lab.useIPv6(7)
	c := lab.accept(lab.dial(40000, 0))
	md, err := c.server.OpeningMetadata()
	c.compare("opening", md, err, c.opening, 0)
	tags := []uint32{c.data(10, "aaaaaaaaaa"), c.data(10, "bbbbbbbbbb")}
	hole := c.data(0, "hole......")
	c.arrived(20)
	c.wants(10, hole, 0)
	c.wantsOneOf(10, tags)
	c.wants(3, c.data(20, "end"), 0)
}

// TestTruthTCPOpening has several segments that may have opened the connection.
func TestTruthTCPOpening(t *testing.T) {
	syn := handSegment{port: 40000, seq: handISN, flags: synFlag}
	for _, tt := range []struct {
		name string
		run  func(lab *truthLab) *handConn // its opening is the likely SYN
	}{
		{"SYN twice", func(lab *truthLab) *handConn {
			c := lab.syn(40000, 0)
			lab.send(syn)
			return c
		}},
		{"SYN, RST, SYN", func(lab *truthLab) *handConn {
			aborted := lab.syn(40000, 0)
			lab.send(handSegment{port: 40000, seq: aborted.seq, flags: rstFlag})
			return lab.syn(40000, 0)
		}},
		{"SYN, evicted, SYN", func(lab *truthLab) *handConn {
			c := lab.syn(40000, 0)
			forgetHandshakes(lab.t)
			c.opening = lab.send(syn)
			return c
		}},
		{"SYN of another number between", func(lab *truthLab) *handConn {
			c := lab.syn(40000, 0)
			other := syn
			other.seq += 1 << 20
			lab.send(other)
			c.opening = lab.send(syn)
			return c
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lab := newTruthLab(t)
			h := tt.run(lab)
			h.data(0, "")
			c := lab.accept(h)
			md, err := c.server.OpeningMetadata()
			c.compare("opening", md, err, c.opening, ambiguous)
		})
	}
}

// TestTruthTCPOpeningAgain repeats the SYNs of many connections: the memory of one
// packet becomes another's, and its address shows nothing.
func TestTruthTCPOpeningAgain(t *testing.T) {
	lab := newTruthLab(t)
	const connections = 200
	for i := range connections {
		port := uint16(40000 + i)
		h := lab.syn(port, 0)
		for range 1 + i%8 {
			lab.send(handSegment{port: port, seq: handISN, flags: synFlag})
		}
		h.data(0, "")
		c := lab.accept(h)
		md, err := c.server.OpeningMetadata()
		c.compare("opening", md, err, h.opening, ambiguous)
		must(t, c.server.Close())
	}
}

// TestTruthTCPCookies has the table give away what it knows of a SYN that the kernel
// answered with a cookie: nothing else remembers it.
func TestTruthTCPCookies(t *testing.T) {
	for _, tt := range []struct {
		name  string
		run   func(lab *truthLab, h *handConn)
		flags cmsg.Flags
	}{
		{"SYN", func(*truthLab, *handConn) {}, cmsg.FlagUnproven},
		{"SYN twice", func(lab *truthLab, _ *handConn) {
			lab.send(handSegment{port: 40000, seq: handISN, flags: synFlag})
		}, ambiguous},
		{"SYN, evicted, SYN", func(lab *truthLab, h *handConn) {
			forgetHandshakes(lab.t)
			h.opening = lab.send(handSegment{port: 40000, seq: handISN, flags: synFlag})
		}, cmsg.FlagUnproven},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lab := newTruthLab(t)
			(&tcpLab{lab.Pair, t}).sysctl(lab.Server, "net.ipv4.tcp_syncookies", "2")
			h := lab.syn(40000, 0)
			tt.run(lab, h)
			h.data(0, "")
			c := lab.accept(h)
			md, err := c.server.OpeningMetadata()
			c.compare("opening", md, err, h.opening, tt.flags)
		})
	}
}

// TestTruthTCPHandshake spoofs the segment that completes a handshake.
func TestTruthTCPHandshake(t *testing.T) {
	lab := newTruthLab(t)
	h := lab.syn(40000, 0)
	forgetHandshakes(t)
	s := h.segment(0, "spoofed")
	s.ack += 1 << 28
	lab.send(s)
	tag := h.data(0, "first")
	s = h.segment(0, "spoofed again")
	s.ack += 1 << 28
	lab.send(s)
	c := lab.accept(h)
	md, err := c.server.OpeningMetadata()
	c.compare("opening", md, err, tag, cmsg.FlagHandshakeAck)
	must1(t)(io.ReadFull(c.server, make([]byte, 5)))
	md, err = c.server.Metadata()
	if err == nil && md.Flags() == 0 {
		c.compare("metadata", md, err, tag, 0)
	}
}

// TestTruthTCPHandshakeAhead completes a handshake with a segment that is not the
// first of the stream, and may be one of two that brought its bytes.
func TestTruthTCPHandshakeAhead(t *testing.T) {
	lab := newTruthLab(t)
	h := lab.syn(40000, 0)
	ahead := h.data(10, "ahead.....")
	c := lab.accept(h)
	md, err := c.server.OpeningMetadata()
	c.compare("opening", md, err, h.opening, 0)
	again := h.data(15, "d.....others")
	first := h.data(0, "0123456789")
	c.arrived(27)
	c.wants(10, first, 0)
	c.wants(5, ahead, 0)
	c.wantsOneOf(3, []uint32{ahead, again})
	c.wants(9, again, 0)
}

// TestTruthTCPLate opts a connection in that has segments waiting out of order.
func TestTruthTCPLate(t *testing.T) {
	p := newTCPPeer(t)
	ln := listenPlainTCP(t, p.Server)
	defer ln.Close()
	h := p.dial(40000, 0)
	plain, err := ln.AcceptTCP()
	must(t, err)
	h.data(10, "brought it")
	h.data(30, "brought it")
	h.data(0, "0123456789")
	waitUnread(t, plain, 20)
	c := &truthConn{handConn: h, server: sockmeta.WrapTCP(plain)}
	defer c.server.Close()
	must(t, c.server.SetDeadline(time.Now().Add(20*time.Second)))
	h.data(30, "too late!!")
	hole := h.data(20, "hole......")
	c.arrived(40)
	must1(t)(io.ReadFull(c.server, make([]byte, 20)))
	if _, err := c.server.Metadata(); !errors.Is(err, sockmeta.ErrNoMetadata) {
		t.Errorf("metadata of what came before: %v", err)
	}
	c.wants(10, hole, cmsg.FlagUnproven)
	must1(t)(io.ReadFull(c.server, make([]byte, 10)))
	md, err := c.server.Metadata()
	if err == nil && !md.Flags().Has(cmsg.FlagUnproven) {
		t.Errorf("metadata of what may have come before is %v", &md)
	}
}

// TestTruthTCPWindow has windows of sizes that few connections have.
func TestTruthTCPWindow(t *testing.T) {
	// dial opens a connection whose window may become larger than 64 KiB.
	dial := func(t *testing.T, buffer int) *truthConn {
		p := newTCPPeer(t)
		var lc sockmeta.ListenConfig
		lc.Control = func(_, _ string, rc syscall.RawConn) (err error) {
			cerr := rc.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer) })
			return errors.Join(cerr, err)
		}
		lab := &truthLab{p, (&tcpLab{p.Pair, t}).listen(lc)}
		h := lab.synFrom(handSegment{port: 40000, seq: handISN, flags: synFlag, scale: 14})
		h.data(0, "")
		return lab.accept(h)
	}
	t.Run("large buffer", func(t *testing.T) {
		c := dial(t, 1<<29)
		ahead := c.data(10, "ahead")
		first := c.data(0, "0123456789")
		c.arrived(15)
		c.wants(10, first, 0)
		c.wants(5, ahead, 0)
	})
	t.Run("clamped later", func(t *testing.T) {
		const size, ahead = 1400, 1<<20/1400*1400 + 100*1400
		c := dial(t, 16<<20)
		off := 0
		fill := func(n int) {
			buf := make([]byte, 20*size)
			for end := off + n; off < end; {
				from := off
				for ; off < end && off < from+len(buf); off += size {
					c.data(off, strings.Repeat("f", size))
				}
				must1(c.t)(io.ReadFull(c.server, buf[:off-from]))
			}
		}
		fill(3 * ahead)
		rc, err := c.server.SyscallConn()
		must(t, err)
		must(t, errors.Join(rc.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP, 2048)
		}), err))
		tags := []uint32{c.data(off+ahead, "0123456789")}
		fill(ahead - size)
		tags = append(tags, c.data(off+size, "0123456789"))
		fill(size)
		c.wantsOneOf(10, tags)
	})
}

// slowOptions has each look at an option take its time, while the socket is locked.
func slowOptions(t *testing.T) {
	t.Helper()
	a, err := bpf.Attach(bpf.Options{})
	must(t, err)
	t.Cleanup(func() { _ = a.Close() })
	attachOther(t, a.Cgroup(), ebpf.AttachCGroupGetsockopt, asm.Instructions{
		asm.Mov.Imm(asm.R0, 0),
		asm.Add.Imm(asm.R0, 1).WithSymbol("again"),
		asm.JLT.Imm(asm.R0, 200_000, "again"),
		asm.Mov.Imm(asm.R0, 1),
		asm.Return(),
	})
}

// TestTruthTCPDialing has the SYN-ACK and what follows it come while the socket is
// locked: the filter sees them before TCP knows any number of the connection.
func TestTruthTCPDialing(t *testing.T) {
	p := newTCPPeer(t)
	slowOptions(t)
	d := sockmeta.Dialer{Require: true}
	var stop chan struct{}
	d.Control = func(_, _ string, rc syscall.RawConn) (err error) {
		var own int
		cerr := rc.Control(func(fd uintptr) { own, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
		go func(stop chan struct{}) {
			defer unix.Close(own)
			var rec abi.Record
			for {
				select {
				case <-stop:
					return
				default:
					_ = bpf.SocketRecord(own, abi.OptTCPRead, &rec)
				}
			}
		}(stop)
		return errors.Join(cerr, err)
	}
	for i := range 20 {
		stop = make(chan struct{})
		result := make(chan *sockmeta.TCPConn, 1)
		go func() {
			defer close(result)
			err := p.Server.Do(func() error {
				c, err := d.Dial("tcp", netip.AddrPortFrom(p.addr, uint16(40000+i)).String())
				if err == nil {
					result <- c.(*sockmeta.TCPConn)
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		}()
		h := p.called(uint16(40000+i), 0x90000000)
		tag := h.data(0, "0123456789")
		server := <-result
		if server == nil {
			close(stop)
			t.FailNow()
		}
		c := &truthConn{h, server}
		must(t, server.SetDeadline(time.Now().Add(20*time.Second)))
		c.arrived(10)
		close(stop)
		c.wants(10, tag, 0)
		must(t, server.Close())
	}
}

// TestTruthTCPMigrated has SYNs repeated at another listener of the port, which leaves
// what they began to the first.
func TestTruthTCPMigrated(t *testing.T) {
	p := newTCPPeer(t)
	lab := &tcpLab{p.Pair, t}
	lab.sysctl(p.Server, "net.ipv4.tcp_migrate_req", "1")
	var lc sockmeta.ListenConfig
	lc.Control = func(_, _ string, rc syscall.RawConn) (err error) {
		cerr := rc.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		return errors.Join(cerr, err)
	}
	ln := lab.listen(lc)
	const connections = 20
	for i := range connections {
		h := p.syn(uint16(40000+i), 0)
		p.send(handSegment{port: h.port, seq: h.seq, flags: rstFlag})
	}
	other := lab.listen(lc)
	var hands []*handConn
	for i := range connections {
		hands = append(hands, p.syn(uint16(40000+i), 0))
	}
	must(t, other.Close())
	for _, h := range hands {
		tag := h.data(0, "0123456789")
		c := (&truthLab{p, ln}).accept(h)
		md, err := c.server.OpeningMetadata()
		c.compare("opening", md, err, h.opening, ambiguous)
		c.wants(10, tag, 0)
		must(t, c.server.Close())
	}
}

// TestTruthTCPDiverted has a sockmap hand a connection what never was in a segment.
func TestTruthTCPDiverted(t *testing.T) {
	p := newTCPPeer(t)
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.SockMap, KeySize: 4, ValueSize: 4, MaxEntries: 2})
	must(t, err)
	defer m.Close()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SkMsg, AttachType: ebpf.AttachSkMsgVerdict, License: "GPL", Instructions: asm.Instructions{
		asm.LoadMapPtr(asm.R2, m.FD()),
		asm.Mov.Imm(asm.R3, 0),
		asm.Mov.Imm(asm.R4, 1), // BPF_F_INGRESS
		asm.FnMsgRedirectMap.Call(),
		asm.Return(),
	}})
	must(t, err)
	defer prog.Close()
	must(t, link.RawAttachProgram(link.RawAttachProgramOptions{Target: m.FD(), Program: prog, Attach: ebpf.AttachSkMsgVerdict}))
	lab := &truthLab{p, (&tcpLab{p.Pair, t}).listen(sockmeta.ListenConfig{})}
	c := lab.accept(lab.dial(40000, 0))
	c.wants(10, c.data(0, "0123456789"), 0)
	sender := (&tcpLab{p.Pair, t}).dial(p.ServerAddr4)
	(&tcpLab{p.Pair, t}).accept(lab.ln)
	for i, sc := range []syscall.Conn{c.server, sender} {
		rc, err := sc.SyscallConn()
		must(t, err)
		must(t, errors.Join(rc.Control(func(fd uintptr) { err = m.Put(uint32(i), uint32(fd)) }), err))
	}
	must1(t)(sender.Write([]byte("diverted")))
	read(t, c.server, "diverted")
	if md, err := c.server.Metadata(); err == nil && !md.Flags().Has(cmsg.FlagUnproven) {
		t.Errorf("metadata of what a sockmap brought is %v", &md)
	}
	must(t, m.Delete(uint32(0)))
	if md, err := c.server.Metadata(); err == nil && !md.Flags().Has(cmsg.FlagUnproven) {
		t.Errorf("metadata of what a sockmap brought before the socket left it is %v", &md)
	}
}

// TestTruthTCPLateStates opts connections in that are not established, but may bring
// something.
func TestTruthTCPLateStates(t *testing.T) {
	p := newTCPPeer(t)
	ln := listenPlainTCP(t, p.Server)
	defer ln.Close()
	h := p.dial(40000, 0)
	plain, err := ln.AcceptTCP()
	must(t, err)
	must(t, plain.CloseWrite())
	c := &truthConn{h, sockmeta.WrapTCP(plain)}
	defer c.server.Close()
	must(t, c.server.SetDeadline(time.Now().Add(20*time.Second)))
	c.wants(10, c.data(0, "0123456789"), cmsg.FlagUnproven)
}

// TestTruthTCPBacklog has no room for a connection when its first data come, and has
// when they come again.
func TestTruthTCPBacklog(t *testing.T) {
	lab := newTruthLab(t)
	first, second := lab.syn(40000, 0), lab.syn(40001, 0)
	rc, err := lab.ln.SyscallConn()
	must(t, err)
	must(t, errors.Join(rc.Control(func(fd uintptr) { err = unix.Listen(int(fd), 0) }), err))
	first.data(0, "")
	second.data(0, "dropped")
	lab.accept(first)
	tag := second.data(0, "dropped")
	c := lab.accept(second)
	md, err := c.server.OpeningMetadata()
	c.compare("opening", md, err, second.opening, 0)
	c.wants(7, tag, 0)
}

// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"io"
	"net"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/conn"
	"github.com/sockmeta/sockmeta-go/internal/abi"
	"github.com/sockmeta/sockmeta-go/internal/testprog"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// TestTruthTCPLostAtEnd loses the record of the stream's last bytes, which come once
// more with another record before the end.
func TestTruthTCPLostAtEnd(t *testing.T) {
	for _, fin := range []bool{false, true} {
		t.Run("FIN "+strconv.FormatBool(fin), func(t *testing.T) {
			p := newTCPPeer(t)
			lab := &truthLab{p, (&tcpLab{p.Pair, t}).listen(sockmeta.ListenConfig{})}
			c := lab.accept(lab.dial(40000, 0))
			withFD(t, c.server, func(fd int) error {
				return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)
			})
			// More than a connection's pages have room for.
			const n = 9000
			c.data(n, "0123456789")
			for i := range n - 1 {
				c.data(i, "x")
				if i%500 == 0 {
					time.Sleep(5 * time.Millisecond)
				}
			}
			c.data(n, "9876543210")
			if fin {
				s := c.segment(n+10, "")
				s.flags |= finFlag
				c.send(s)
			}
			c.data(n-1, "h")
			c.arrived(n + 10)
			must1(t)(io.ReadFull(c.server, make([]byte, n+10)))
			if md, err := c.server.Metadata(); !errors.Is(err, sockmeta.ErrOverrun) {
				t.Errorf("%v, %v, want ErrOverrun", &md, err)
			}
			if !fin {
				return
			}
			if k, err := c.server.Read(make([]byte, 1)); k != 0 || err != io.EOF {
				t.Fatal(k, err)
			}
			if md, err := c.server.Metadata(); !errors.Is(err, sockmeta.ErrOverrun) {
				t.Errorf("behind the end: %v, %v, want ErrOverrun", &md, err)
			}
		})
	}
}

// TestTruthTCPFirstMove asks while the first record moves out of the ring.
func TestTruthTCPFirstMove(t *testing.T) {
	cpus := readCPUs(t, "online")
	if len(cpus) < 2 {
		t.Skip("needs 2 CPUs: the segment comes while getsockopt looks")
	}
	lab := newTruthLab(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var was unix.CPUSet
	must(t, unix.SchedGetaffinity(0, &was))
	defer func() { must(t, unix.SchedSetaffinity(0, &was)) }()
	runOn := func(cpu int) error {
		var set unix.CPUSet
		set.Set(cpu)
		return unix.SchedSetaffinity(0, &set)
	}
	must(t, runOn(cpus[0]))
	answers := 0
	for i := range testutil.Scale(500) {
		c := lab.accept(lab.dial(uint16(20000+i), 0))
		first := c.data(10, strings.Repeat("a", 100))
		second := c.data(10, strings.Repeat("b", 100))
		c.data(0, "hole......")
		off := 110
		// These, the handshake, and the three above fill the ring.
		for range 12 {
			c.data(off, "f")
			off++
		}
		c.arrived(off)
		must1(t)(io.ReadFull(c.server, make([]byte, 60)))
		c.data(off, "g")
		off++
		c.arrived(off - 60)
		own := -1
		withFD(t, c.server, func(fd int) (err error) {
			own, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
			return err
		})
		var stop atomic.Bool
		done := make(chan struct{})
		go func() {
			defer close(done)
			// It ends with the goroutine.
			runtime.LockOSThread()
			if err := runOn(cpus[1]); err != nil {
				t.Error(err)
			}
			for !stop.Load() {
				var rec abi.Record
				if bpf.SocketRecord(own, abi.OptTCPRead, &rec) != nil {
					continue
				}
				answers++
				if rec.Flags&abi.FlagUnproven == 0 {
					t.Errorf("connection %d: a record without a flag, of %d and %d", i, first, second)
					return
				}
			}
		}()
		time.Sleep(time.Duration(200+i%50) * time.Microsecond)
		c.data(off, "h")
		off++
		c.arrived(off - 60)
		time.Sleep(100 * time.Microsecond)
		stop.Store(true)
		<-done
		must(t, unix.Close(own))
		must(t, c.server.Close())
	}
	if answers == 0 {
		t.Error("there was no answer")
	}
}

// TestTruthTCPNothingRead reads the end of a stream that has no byte.
func TestTruthTCPNothingRead(t *testing.T) {
	p := testutil.Pair(t)
	testutil.EnterCgroup(t)
	lab := &tcpLab{p, t}
	l := lab.listen(sockmeta.ListenConfig{})
	var client net.Conn
	must(t, p.Client.Do(func() (err error) {
		client, err = net.Dial("tcp", net.JoinHostPort(p.ServerAddr4.String(), strconv.Itoa(tcpPort)))
		return err
	}))
	defer client.Close()
	c := lab.accept(l)
	must(t, client.(*net.TCPConn).CloseWrite())
	if n, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Fatal(n, err)
	}
	must1(t)(c.Write([]byte("answer")))
	must1(t)(client.Read(make([]byte, 10)))
	// The acknowledgement of that.
	for deadline := time.Now().Add(udpPatience); ; time.Sleep(time.Millisecond) {
		var info *unix.TCPInfo
		withFD(t, c, func(fd int) (err error) {
			info, err = unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
			return err
		})
		if info.Unacked == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the answer is not acknowledged")
		}
	}
	if md, err := c.Metadata(); !errors.Is(err, sockmeta.ErrNoMetadata) {
		t.Errorf("%v, %v, want ErrNoMetadata", &md, err)
	}
}

// TestTruthTCPManyWaiting has more connections wait with more than the ring holds than
// a host often has.
func TestTruthTCPManyWaiting(t *testing.T) {
	lab := newTruthLab(t)
	const conns, segments = 200, 20
	var cs []*truthConn
	var tags [][]uint32
	for i := range conns {
		c := lab.accept(lab.dial(uint16(40000+i), 0))
		cs, tags = append(cs, c), append(tags, c.small(0, segments))
		c.arrived(10 * segments)
	}
	for i, c := range cs {
		for k := range segments {
			must1(t)(io.ReadFull(c.server, make([]byte, 10)))
			md, err := c.server.Metadata()
			if tag, _ := md.Uint32(testprog.KeyTag); err != nil || tag != tags[i][k] {
				t.Fatalf("connection %d, segment %d: %v, %v", i, k, &md, err)
			}
		}
	}
}

// TestTruthTCPDeferred disconnects a socket that has not read all, and connects it to
// another host in the manner that sends nothing until there is something to write.
func TestTruthTCPDeferred(t *testing.T) {
	lab := newTruthLab(t)
	c := lab.accept(lab.dial(40000, 0))
	tag := c.data(0, "0123456789")
	c.data(10, "not read")
	c.arrived(18)
	c.wants(10, tag, 0)
	withFD(t, c.server, func(fd int) error {
		unspec := unix.RawSockaddr{Family: unix.AF_UNSPEC}
		if _, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&unspec)), unsafe.Sizeof(unspec)); e != 0 {
			return e
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN_NO_COOKIE, 1); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1); err != nil {
			return err
		}
		to := &unix.SockaddrInet6{Port: 9}
		mapped := lab.ClientAddr4.As16()
		copy(to.Addr[:], mapped[:])
		return unix.Connect(fd, to)
	})
	for name, ask := range map[string]func() (sockmeta.Metadata, error){
		"Metadata": c.server.Metadata, "OpeningMetadata": c.server.OpeningMetadata, "LatestMetadata": c.server.LatestMetadata,
	} {
		if md, err := ask(); !errors.Is(err, sockmeta.ErrNoMetadata) {
			t.Errorf("%s: %v, %v, want ErrNoMetadata", name, &md, err)
		}
	}
}

// TestTruthTCPOtherListener answers a SYN by a listener that opts in afterwards: what
// another one saw of an earlier SYN is not certain.
func TestTruthTCPOtherListener(t *testing.T) {
	p := newTCPPeer(t)
	first := (&tcpLab{p.Pair, t}).listen(sockmeta.ListenConfig{})
	seen := p.syn(40000, 0).opening
	must(t, first.Close())
	var plain *net.TCPListener
	must(t, p.Server.Do(func() error {
		var lc net.ListenConfig
		lc.SetMultipathTCP(false)
		l, err := lc.Listen(t.Context(), "tcp", ":"+strconv.Itoa(tcpPort))
		if err == nil {
			plain = l.(*net.TCPListener)
		}
		return err
	}))
	again := p.syn(40000, 0)
	ln := conn.NewTCPListener(plain)
	defer ln.Close()
	again.data(0, "")
	c := (&truthLab{p, ln}).accept(again)
	md, err := c.server.OpeningMetadata()
	if tag, _ := md.Uint32(testprog.KeyTag); err == nil && tag == seen && !md.Flags().Has(cmsg.FlagUnproven) {
		t.Errorf("%v is of SYN %d, SYN %d opened the connection", &md, seen, again.opening)
	}
}

// TestTruthTCPCutFIN has the application's own filter cut a segment with a FIN, which
// comes to lie in front of what the peer sends behind it.
func TestTruthTCPCutFIN(t *testing.T) {
	lab := newTruthLab(t)
	c := lab.accept(lab.dial(40000, 0))
	code := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 13},
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, Jf: 1, K: finFlag},
		{Code: unix.BPF_RET | unix.BPF_K, K: 25},
		{Code: unix.BPF_RET | unix.BPF_K, K: ^uint32(0)},
	}
	withFD(t, c.server, func(fd int) error {
		return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]})
	})
	s := c.segment(10, "SSSSSSSSSS")
	s.flags |= finFlag
	of := map[byte]uint32{'S': c.send(s), 'D': c.data(16, "DDDDDDDDDDDDDD"), '0': c.data(0, "0000000000")}
	c.arrived(10)
	b := make([]byte, 1)
	read := 0
	for ; ; read++ {
		_, err := c.server.Read(b)
		if err == io.EOF {
			break
		}
		must(t, err)
		md, err := c.server.Metadata()
		if tag, _ := md.Uint32(testprog.KeyTag); err == nil && tag != of[b[0]] && !md.Flags().Has(cmsg.FlagUnproven) {
			t.Errorf("byte %d is of %d, its record %v of %d", read, of[b[0]], &md, tag)
		}
	}
	if read < 15 {
		t.Errorf("%d bytes, want those in front of the FIN at least", read)
	}
}

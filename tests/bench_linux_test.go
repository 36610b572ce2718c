// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// benchBatch is how many operations are timed at once, and how many datagrams
// are sent before they are read.
const benchBatch = 64

// A contender is one side of a comparison.
type contender struct {
	name    string
	prepare func() error // for one batch; not timed
	batch   func() error // benchBatch operations
}

// compare times batches of the contenders in turn, so that whatever else the
// machine does falls on all of them. It reports the median time of each
// operation, and the others' by the first one's.
func compare(b *testing.B, contenders ...contender) {
	b.Helper()
	times := make([][]float64, len(contenders))
	// As often the one is first as the other.
	for round := 0; b.Loop(); round++ {
		for i := range contenders {
			i := (i + round) % len(contenders)
			c := contenders[i]
			if c.prepare != nil {
				must(b, c.prepare())
			}
			start := time.Now()
			err := c.batch()
			took := time.Since(start)
			must(b, err)
			times[i] = append(times[i], float64(took.Nanoseconds())/benchBatch)
		}
	}
	// A round's time, with all preparations, says nothing.
	b.ReportMetric(0, "ns/op")
	first := median(times[0])
	for i, c := range contenders {
		b.ReportMetric(median(times[i]), c.name+"-ns")
		if i > 0 {
			b.ReportMetric(median(times[i])/first, c.name+"-x-"+contenders[0].name)
		}
	}
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// batchOf makes a batch of an operation.
func batchOf(f func() error) func() error {
	return func() error {
		for range benchBatch {
			if err := f(); err != nil {
				return err
			}
		}
		return nil
	}
}

// benchLab is a server with metadata on its packets and a client whose sockets
// are in no cgroup with programs.
type benchLab struct {
	*netlab.Pair
	cgroup     *netlab.Cgroup
	attachment *bpf.Attachment
}

func newBenchLab(b *testing.B) *benchLab {
	b.Helper()
	lab := &benchLab{Pair: testutil.Pair(b), cgroup: testutil.Cgroup(b)}
	var err error
	lab.attachment, err = bpf.Attach(bpf.Options{Cgroup: lab.cgroup.Path()})
	must(b, err)
	b.Cleanup(func() { _ = lab.attachment.Close() })
	must(b, lab.Server.Do(func() error {
		producer, err := bpf.AttachProducer(lab.ServerIf, bpf.ProducerOptions{})
		if err != nil {
			return err
		}
		b.Cleanup(func() { _ = producer.Close() })
		return nil
	}))
	return lab
}

// serve calls f in the server's namespace and the cgroup.
func (lab *benchLab) serve(b *testing.B, f func() error) {
	b.Helper()
	leave, err := lab.cgroup.Enter()
	must(b, err)
	err = lab.Server.Do(f)
	must(b, errors.Join(err, leave()))
}

func (lab *benchLab) udp(b *testing.B) *sockmeta.UDPConn {
	b.Helper()
	var c *sockmeta.UDPConn
	lab.serve(b, func() error {
		lc := sockmeta.ListenConfig{Require: true}
		p, err := lc.ListenPacket(b.Context(), "udp4", netip.AddrPortFrom(lab.ServerAddr4, 0).String())
		if err == nil {
			c = p.(*sockmeta.UDPConn)
		}
		return err
	})
	b.Cleanup(func() { _ = c.Close() })
	return c
}

func (lab *benchLab) plainUDP(b *testing.B) *net.UDPConn {
	b.Helper()
	var c *net.UDPConn
	lab.serve(b, func() (err error) {
		c, err = net.ListenUDP("udp4", &net.UDPAddr{IP: lab.ServerAddr4.AsSlice()})
		return err
	})
	b.Cleanup(func() { _ = c.Close() })
	return c
}

func (lab *benchLab) dial(b *testing.B, addr net.Addr) net.Conn {
	b.Helper()
	var c net.Conn
	must(b, lab.Client.Do(func() (err error) {
		c, err = net.Dial(addr.Network(), addr.String())
		return err
	}))
	b.Cleanup(func() { _ = c.Close() })
	return c
}

// packetConn is what a filler needs of a *net.UDPConn or *sockmeta.UDPConn.
type packetConn interface {
	net.PacketConn
	syscall.Conn
}

// filler returns a function that sends benchBatch datagrams to a socket and
// returns when they are in its queue.
func (lab *benchLab) filler(b *testing.B, c packetConn) func() error {
	b.Helper()
	client := lab.dial(b, c.LocalAddr())
	payload := make([]byte, 64)
	send := batchOf(func() error {
		_, err := client.Write(payload)
		return err
	})
	must(b, send())
	// Time enough for all to arrive: then the queue's size is known, but for
	// what differs from packet to packet.
	time.Sleep(100 * time.Millisecond)
	full, err := queued(c)
	must(b, err)
	full -= full / (benchBatch / 2)
	must(b, c.SetReadDeadline(time.Now().Add(time.Second)))
	must(b, batchOf(func() error {
		_, _, err := c.ReadFrom(payload)
		return err
	})())
	return func() error {
		if err := send(); err != nil {
			return err
		}
		deadline := time.Now().Add(time.Second)
		// A reader that waits in vain fails rather than hangs.
		if err := c.SetReadDeadline(deadline.Add(time.Second)); err != nil {
			return err
		}
		for {
			n, err := queued(c)
			if err != nil {
				return err
			}
			if n >= full {
				spin(20 * time.Microsecond) // for the last ones
				return nil
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%d bytes queued, want %d", n, full)
			}
		}
	}
}

func spin(d time.Duration) {
	for start := time.Now(); time.Since(start) < d; {
	}
}

// queued returns the size of the socket's receive queue, as it counts against
// the receive buffer.
func queued(c syscall.Conn) (n int, err error) {
	// The first number of SO_MEMINFO is SK_MEMINFO_RMEM_ALLOC.
	return n, onSocket(c, func(fd int) (err error) {
		n, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MEMINFO)
		return err
	})
}

func onSocket(c syscall.Conn, f func(fd int) error) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	cerr := rc.Control(func(fd uintptr) { err = f(int(fd)) })
	return errors.Join(cerr, err)
}

// tcp returns a connection between the client and a socket that listen makes.
func (lab *benchLab) tcp(b *testing.B, listen func(addr string) (net.Listener, error)) (client, server net.Conn) {
	b.Helper()
	var l net.Listener
	lab.serve(b, func() (err error) {
		l, err = listen(netip.AddrPortFrom(lab.ServerAddr4, 0).String())
		return err
	})
	defer l.Close()
	client = lab.dial(b, l.Addr())
	server, err := l.Accept()
	must(b, err)
	b.Cleanup(func() { _ = server.Close() })
	return client, server
}

func (lab *benchLab) sockmetaTCP(b *testing.B) (client net.Conn, server *sockmeta.TCPConn) {
	b.Helper()
	client, c := lab.tcp(b, func(addr string) (net.Listener, error) {
		lc := sockmeta.ListenConfig{Require: true}
		return lc.Listen(b.Context(), "tcp4", addr)
	})
	return client, c.(*sockmeta.TCPConn)
}

// BenchmarkReadMetadata compares reads from a queue of datagrams that all have
// metadata: without a word about it, and with ReadMetadata.
func BenchmarkReadMetadata(b *testing.B) {
	lab := newBenchLab(b)
	plain, c := lab.plainUDP(b), lab.udp(b)
	if !c.Support().Mapped {
		b.Fatal(c.Support())
	}
	buf := make([]byte, 2048)
	var md sockmeta.Metadata
	compare(b, contender{
		name:    "plain",
		prepare: lab.filler(b, plain),
		batch: batchOf(func() error {
			_, _, _, _, err := plain.ReadMsgUDPAddrPort(buf, nil)
			return err
		}),
	}, contender{
		name:    "metadata",
		prepare: lab.filler(b, c),
		batch: batchOf(func() error {
			_, _, err := c.ReadMetadata(buf, &md)
			return err
		}),
	})
}

// BenchmarkRecord compares the two ways from a handle to its record.
func BenchmarkRecord(b *testing.B) {
	lab := newBenchLab(b)
	c := lab.udp(b)
	_, err := lab.dial(b, c.LocalAddr()).Write([]byte("payload"))
	must(b, err)
	must(b, c.SetReadDeadline(time.Now().Add(10*time.Second)))
	var oob [128]byte
	_, n, _, _, err := c.NetConn().(*net.UDPConn).ReadMsgUDPAddrPort(make([]byte, 64), oob[:])
	must(b, err)
	data, ok := cmsg.Find(oob[:n], unix.SOL_SOCKET, unix.SO_TIMESTAMPING)
	if !ok || len(data) < 16 {
		b.Fatalf("no handle in % x", oob[:n])
	}
	handle := binary.NativeEndian.Uint64(data)*uint64(time.Second) + binary.NativeEndian.Uint64(data[8:])

	var words [bpf.RecordWords]uint64
	slots := lab.attachment.Slots()
	var owner uint64
	must(b, onSocket(c, func(fd int) (err error) {
		owner, err = bpf.SocketID(fd, lab.attachment.Info())
		return err
	}))
	compare(b, contender{
		name: "mapped",
		batch: batchOf(func() error {
			_, err := slots.Read(handle, owner, &words)
			return err
		}),
	}, contender{
		name: "getsockopt",
		batch: func() error {
			return onSocket(c, func(fd int) error {
				return batchOf(func() error {
					_, err := bpf.SocketSlot(fd, handle, &words)
					return err
				})()
			})
		},
	})
}

// BenchmarkTCPMetadata compares Metadata with a plain getsockopt of a socket
// that no programs see, and of its own socket.
func BenchmarkTCPMetadata(b *testing.B) {
	lab := newBenchLab(b)
	client, c := lab.sockmetaTCP(b)
	_, err := client.Write([]byte("payload"))
	must(b, err)
	_, err = c.Read(make([]byte, 64))
	must(b, err)
	mark := func(fd int) error {
		_, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK)
		return err
	}
	compare(b, contender{
		name:  "so_mark",
		batch: batchOf(func() error { return onSocket(client.(*net.TCPConn), mark) }),
	}, contender{
		name:  "so_mark_here",
		batch: batchOf(func() error { return onSocket(c, mark) }),
	}, contender{
		name: "metadata",
		batch: batchOf(func() error {
			_, err := c.Metadata()
			return err
		}),
	})
}

// BenchmarkOtherSockopt shows what the programs cost the getsockopt calls of
// sockets in their cgroup that have nothing to do with them.
func BenchmarkOtherSockopt(b *testing.B) {
	lab := newBenchLab(b)
	here := lab.plainUDP(b)
	elsewhere := lab.dial(b, here.LocalAddr()).(*net.UDPConn)
	typ := func(fd int) error {
		return batchOf(func() error {
			_, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
			return err
		})()
	}
	compare(b,
		contender{name: "elsewhere", batch: func() error { return onSocket(elsewhere, typ) }},
		contender{name: "here", batch: func() error { return onSocket(here, typ) }},
	)
}

// BenchmarkIngress reports the run time of the program that each packet goes
// through, as the kernel measures it (which itself is part of it): of packets
// to sockets that opted in, and to others in the cgroup.
func BenchmarkIngress(b *testing.B) {
	lab := newBenchLab(b)
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	must(b, err)
	b.Cleanup(func() { _ = stats.Close() })
	prog := lab.program(b, ebpf.AttachCGroupInetIngress)

	plain, c := lab.plainUDP(b), lab.udp(b)
	client, server := lab.sockmetaTCP(b)
	plainClient, plainServer := lab.tcp(b, func(addr string) (net.Listener, error) {
		return net.Listen("tcp4", addr)
	})
	runTimes(b, prog, []traffic{
		{"udp", receiveAll(lab.filler(b, c), c)},
		{"udp-other", receiveAll(lab.filler(b, plain), plain)},
		{"tcp", pingAll(client, server)},
		{"tcp-other", pingAll(plainClient, plainServer)},
	})
}

// traffic makes packets go through a program.
type traffic struct {
	name string
	send func() error
}

// runTimes reports what the kernel says of a program's runs, by traffic.
func runTimes(b *testing.B, prog *ebpf.Program, traffic []traffic) {
	b.Helper()
	times := make([][]float64, len(traffic))
	for b.Loop() {
		for i, t := range traffic {
			before, err := prog.Stats()
			must(b, err)
			must(b, t.send())
			after, err := prog.Stats()
			must(b, err)
			if n := after.RunCount - before.RunCount; n > 0 {
				times[i] = append(times[i], float64((after.Runtime-before.Runtime).Nanoseconds())/float64(n))
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	for i, t := range traffic {
		if len(times[i]) == 0 {
			b.Fatalf("no packets of %s", t.name)
		}
		b.ReportMetric(median(times[i]), t.name+"-ns/packet")
	}
}

// program opens the program that looks at the cgroup's packets.
func (lab *benchLab) program(b *testing.B, typ ebpf.AttachType) *ebpf.Program {
	b.Helper()
	dir, err := os.Open(lab.cgroup.Path())
	must(b, err)
	defer dir.Close()
	attached, err := link.QueryPrograms(link.QueryOptions{
		Target: int(dir.Fd()), Attach: typ,
	})
	must(b, err)
	if len(attached.Programs) != 1 {
		b.Fatalf("%d programs are attached", len(attached.Programs))
	}
	prog, err := ebpf.NewProgramFromID(attached.Programs[0].ID)
	must(b, err)
	b.Cleanup(func() { _ = prog.Close() })
	return prog
}

func receiveAll(fill func() error, c net.PacketConn) func() error {
	buf := make([]byte, 2048)
	read := batchOf(func() error {
		_, _, err := c.ReadFrom(buf)
		return err
	})
	return func() error {
		if err := fill(); err != nil {
			return err
		}
		return read()
	}
}

// pingAll sends segment by segment.
func pingAll(client, server net.Conn) func() error {
	b := make([]byte, 64)
	return batchOf(func() error {
		if _, err := client.Write(b); err != nil {
			return err
		}
		_, err := io.ReadFull(server, b)
		return err
	})
}

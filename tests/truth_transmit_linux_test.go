// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// slotUses is after how many uses of a slot its numbers begin anew, and
// firstSlots how many slots a process begins with. Batches make it use more.
const slotUses, firstSlots = 1024, 32

// roundSize is after how many datagrams the numbers of a process begin anew that has
// sent no batch.
const roundSize = slotUses * firstSlots

// inNewProcess says whether the test runs in a process of its own, which has sent
// nothing before. If not, it runs the test in one.
func inNewProcess(t *testing.T) bool {
	t.Helper()
	const env = "SOCKMETA_TEST_ALONE"
	if os.Getenv(env) == t.Name() {
		return true
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", fmt.Sprint("-test.short=", testing.Short()))
	cmd.Env = append(os.Environ(), env+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// A corkedPair sends to itself; its datagrams' priorities say whose record they
// left with.
type corkedPair struct {
	receiver, sender *sockmeta.UDPConn
	to               netip.AddrPort
}

func newCorkedPair(t *testing.T, lab *txLab, network string) *corkedPair {
	t.Helper()
	addr := netip.MustParseAddr("127.0.0.1")
	if network == "udp6" {
		addr = netip.IPv6Loopback()
	}
	p := &corkedPair{receiver: listenUDP(t, lab.Client, network, &net.UDPAddr{})}
	p.to = netip.AddrPortFrom(addr, uint16(p.receiver.LocalAddr().(*net.UDPAddr).Port))
	p.sender = listenUDP(t, lab.Client, network, &net.UDPAddr{})
	return p
}

func (p *corkedPair) cork(t *testing.T, on int) {
	t.Helper()
	must(t, onSocket(p.sender, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_CORK, on) }))
}

// write sends by c with a record that has the priority.
func (p *corkedPair) write(t *testing.T, c *sockmeta.UDPConn, payload string, priority uint32) {
	t.Helper()
	var md sockmeta.Metadata
	md.SetPriority(priority)
	n, err := c.WriteMetadata([]byte(payload), &md, p.to)
	if n != len(payload) || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
}

// arrives reads a datagram, and returns the priority that it left with.
func (p *corkedPair) arrives(t *testing.T, size int) uint32 {
	t.Helper()
	var md sockmeta.Metadata
	b := make([]byte, 1<<16)
	must(t, p.receiver.SetReadDeadline(time.Now().Add(udpPatience)))
	n, _, err := p.receiver.ReadMetadata(b, &md)
	if n != size || err != nil {
		t.Fatalf("%d bytes, want %d: %v", n, size, err)
	}
	priority, _ := md.Priority()
	return priority
}

// TestTruthTransmitCorked has a datagram wait while the numbers of its slot come
// again, on its own socket and on others: it leaves with its own record or none.
func TestTruthTransmitCorked(t *testing.T) {
	if !inNewProcess(t) {
		return
	}
	lab := newTxLab(t, bpf.DefaultPolicy())
	for _, network := range []string{"udp4", "udp6", "udp"} {
		laters := []int{0, 1, firstSlots - 1, slotUses, roundSize - 1}
		if !testing.Short() || network == "udp4" {
			laters = append(laters, roundSize-firstSlots, roundSize, roundSize+1)
		}
		for _, later := range laters {
			t.Run(fmt.Sprintf("%s %d", network, later), func(t *testing.T) {
				p := newCorkedPair(t, lab, network)
				p.cork(t, 1)
				p.write(t, p.sender, "a", 1)
				for range later {
					p.write(t, p.sender, "", 5)
				}
				p.cork(t, 0)
				got := p.arrives(t, 1)
				if got > 1 || later == 0 && got != 1 {
					t.Errorf("left with priority %d", got)
				}
				// And now by itself.
				p.write(t, p.sender, "c", 3)
				if got := p.arrives(t, 1); got != 3 {
					t.Errorf("after it: priority %d", got)
				}
			})
		}
	}
}

// TestTruthTransmitCorkedTwice has two connections to one socket: one makes a
// datagram, the other adds to it by numbers that have come again.
func TestTruthTransmitCorkedTwice(t *testing.T) {
	if !inNewProcess(t) {
		return
	}
	lab := newTxLab(t, bpf.DefaultPolicy())
	p := newCorkedPair(t, lab, "udp4")
	f, err := p.sender.File()
	must(t, err)
	defer f.Close()
	c, err := net.FilePacketConn(f)
	must(t, err)
	again := sockmeta.WrapUDP(c.(*net.UDPConn))
	defer again.Close()
	p.write(t, again, "b", 2)
	if got := p.arrives(t, 1); got != 2 {
		t.Fatalf("priority %d", got)
	}
	other := newCorkedPair(t, lab, "udp4")
	for _, first := range []*sockmeta.UDPConn{p.sender, again} {
		p.cork(t, 1)
		p.write(t, first, "a", 1)
		// They get by all but the last numbers that have to come.
		for range roundSize - firstSlots {
			other.write(t, other.sender, "x", 4)
		}
		// The last of them has the number of the first.
		for range firstSlots {
			p.write(t, again, "", 5)
		}
		p.cork(t, 0)
		if got := p.arrives(t, 1); got > 1 {
			t.Errorf("left with priority %d", got)
		}
	}
}

// TestTruthTransmitCorkedFirst has a datagram wait when metadata is sent on its
// socket for the first time: the call says that it was too late, and the next may.
func TestTruthTransmitCorkedFirst(t *testing.T) {
	lab := newTxLab(t, bpf.DefaultPolicy())
	p := newCorkedPair(t, lab, "udp4")
	p.cork(t, 1)
	must1(t)(p.sender.WriteToUDPAddrPort([]byte("a"), p.to))
	var md sockmeta.Metadata
	md.SetPriority(5)
	n, err := p.sender.WriteMetadata([]byte("b"), &md, p.to)
	if n != 1 || !sockmeta.IsMetadataError(err) {
		t.Errorf("%d, %v", n, err)
	}
	p.cork(t, 0)
	if got := p.arrives(t, 2); got != 0 {
		t.Errorf("left with priority %d", got)
	}
	p.write(t, p.sender, "c", 3)
	if got := p.arrives(t, 1); got != 3 {
		t.Errorf("after it: priority %d", got)
	}
}

// TestTransmitRounds has every record arrive while numbers come again many
// times, by several sockets in turn.
func TestTransmitRounds(t *testing.T) {
	if !inNewProcess(t) {
		return
	}
	datagrams := 3 * roundSize
	if testing.Short() {
		datagrams = roundSize + roundSize/4
	}
	lab := newTxLab(t, bpf.DefaultPolicy())
	var pairs []*corkedPair
	for range 3 {
		pairs = append(pairs, newCorkedPair(t, lab, "udp4"))
	}
	for i := range datagrams {
		p := pairs[i*i%len(pairs)]
		want := uint32(1 + i%6)
		p.write(t, p.sender, "a", want)
		if got := p.arrives(t, 1); got != want {
			t.Fatalf("datagram %d left with priority %d, want %d", i, got, want)
		}
	}
	if got, err := lab.attachment.Counts(); err != nil || got.Stale+got.Foreign != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// setFeatures switches features of a link on, or off those with a - in front.
func setFeatures(t *testing.T, ns *netlab.Namespace, link string, features ...string) {
	t.Helper()
	for _, f := range features {
		on := f[0] != '-'
		if !on {
			f = f[1:]
		}
		must(t, netlab.SetFeature(ns, link, f, on))
	}
}

// crossed is what came of what senders gave.
type crossed struct{ right, lost, without int }

// receiveCrossed reads count datagrams, each of which begins with what its sender
// gave, noMetadata being nothing.
func receiveCrossed(t *testing.T, c *sockmeta.UDPConn, count int) (got crossed) {
	t.Helper()
	b := make([]byte, 1<<16)
	for range count {
		var md, s sockmeta.Metadata
		n, _, err := c.ReadMetadata(b, &md)
		if err != nil && !sockmeta.IsMetadataError(err) {
			t.Fatalf("after %+v: %v", got, err)
		}
		want := binary.NativeEndian.Uint64(b[:n])
		ok := md.Sender(&s)
		v, _ := s.Uint64(localKey)
		switch {
		case ok && v != want:
			t.Fatalf("%#x has what the sender of %#x gave: %v", want, v, &md)
		case ok:
			got.right++
		case err != nil || md.Flags().Has(cmsg.FlagSenderLost):
			got.lost++
		case want != noMetadata:
			t.Fatalf("%#x has nothing of what the sender gave, and does not say so: %v", want, &md)
		default:
			got.without++
		}
	}
	return got
}

// TestTruthLocalMerged has datagrams, each with its own metadata or with none, merge
// on their way: none comes with another's.
func TestTruthLocalMerged(t *testing.T) {
	testutil.Leaks(t)
	tried, merged := false, 0
	for _, way := range []struct {
		name             string
		sender, receiver []string
		gro              sockmeta.Segments
		producer         bool
	}{
		{name: "forwarding", receiver: []string{"rx-udp-gro-forwarding"}},
		{name: "list", receiver: []string{"rx-gro-list"}},
		// A socket with UDP_GRO has those merged whose checksums are there.
		{name: "socket", sender: []string{"-tx-checksum-ip-generic"}, gro: sockmeta.SegmentsSplit},
		{name: "socket and forwarding", receiver: []string{"rx-udp-gro-forwarding"}, gro: sockmeta.SegmentsSplit},
		// Its packet ids keep GRO from merging; the packets are copied.
		{name: "producer", receiver: []string{"rx-udp-gro-forwarding"}, producer: true},
	} {
		for _, network := range []string{"udp4", "udp6", "udp"} {
			t.Run(way.name+" "+network, func(t *testing.T) {
				lab := newLocalLab(t)
				tried = true
				setFeatures(t, lab.Client, lab.ClientIf, way.sender...)
				setFeatures(t, lab.Server, lab.ServerIf, append(way.receiver, "rx-gro")...)
				must(t, netlab.SetMerging(lab.Server, lab.ServerIf))
				if way.producer {
					must(t, lab.Server.Do(func() error {
						p, err := bpf.AttachProducer(lab.ServerIf, bpf.ProducerOptions{})
						if err == nil {
							t.Cleanup(func() { _ = p.Close() })
						}
						return err
					}))
				}
				server := listenUDP(t, lab.Server, network, &net.UDPAddr{Port: 9000})
				must(t, server.SetGRO(way.gro))
				must(t, server.SetReadBuffer(1<<20))
				client := listenUDP(t, lab.Client, network, &net.UDPAddr{})
				to := netip.AddrPortFrom(lab.ServerAddr4, 9000)
				if network == "udp6" {
					to = netip.AddrPortFrom(lab.ServerAddr6, 9000)
				}
				const batches, size = 24, 64
				var got crossed
				for i := range batches {
					ms := make([]sockmeta.Message, size)
					for j := range ms {
						// All, some of them, all but the first.
						id := uint64(i)<<32 | uint64(j)
						if i%3 == 1 && j%3 == 0 || i%3 == 2 && j%16 == 0 {
							id = noMetadata
						} else {
							must(t, ms[j].Metadata.SetUint64(localKey, id))
						}
						ms[j].Buf = make([]byte, 100)
						binary.NativeEndian.PutUint64(ms[j].Buf, id)
						ms[j].Addr = to
					}
					n, err := client.WriteBatchMetadata(ms, 0)
					must(t, err)
					one := receiveCrossed(t, server, n)
					got.right, got.lost, got.without = got.right+one.right, got.lost+one.lost, got.without+one.without
				}
				t.Logf("%+v", got)
				if way.producer && got.lost != 0 {
					t.Errorf("%+v", got)
				}
				merged += got.lost
			})
		}
	}
	// Which of them merge depends on whether any socket of the host has UDP_GRO.
	if tried && merged == 0 {
		t.Error("nothing merged")
	}
}

// TestLocalTrains has trains of segments, each with its own metadata, keep it
// where they cross as they are, and their segments where software cuts them. What
// GRO merges again says that it was lost.
func TestLocalTrains(t *testing.T) {
	testutil.Leaks(t)
	const segment, segments, trains, batches = 100, 8, 8, 8
	for _, way := range []struct {
		name             string
		sender, receiver []string
		gro              sockmeta.Segments
		all              bool
	}{
		{name: "whole", all: true},
		{name: "whole, socket", gro: sockmeta.SegmentsSplit, all: true},
		{name: "cut", sender: []string{"-tx-udp-segmentation"}, all: true},
		{name: "cut and merged", sender: []string{"-tx-udp-segmentation"}, receiver: []string{"rx-udp-gro-forwarding"}},
		{name: "cut and merged by the socket", sender: []string{"-tx-checksum-ip-generic"}, gro: sockmeta.SegmentsSplit},
		{name: "cut and listed", sender: []string{"-tx-udp-segmentation"}, receiver: []string{"rx-gro-list"}},
	} {
		t.Run(way.name, func(t *testing.T) {
			lab := newLocalLab(t)
			setFeatures(t, lab.Client, lab.ClientIf, way.sender...)
			setFeatures(t, lab.Server, lab.ServerIf, append(way.receiver, "rx-gro")...)
			must(t, netlab.SetMerging(lab.Server, lab.ServerIf))
			server := listenUDP(t, lab.Server, "udp4", &net.UDPAddr{Port: 9000})
			must(t, server.SetGRO(way.gro))
			must(t, server.SetReadBuffer(1<<20))
			client := listenUDP(t, lab.Client, "udp4", &net.UDPAddr{})
			for batch := range uint64(batches) {
				ms := make([]sockmeta.Message, trains)
				for i := range ms {
					id := batch<<32 | uint64(i+1)
					ms[i].Buf = make([]byte, segment*segments)
					for j := range segments {
						binary.NativeEndian.PutUint64(ms[i].Buf[j*segment:], id)
					}
					must(t, ms[i].Metadata.SetUint64(localKey, id))
					ms[i].SegmentSize, ms[i].Addr = segment, netip.AddrPortFrom(lab.ServerAddr4, 9000)
				}
				n, err := client.WriteBatchMetadata(ms, 0)
				must(t, err)
				if got := receiveCrossed(t, server, n*segments); way.all && got.right != n*segments {
					t.Errorf("%+v", got)
				}
			}
		})
	}
}

// TestTruthLocalReplayed has a process in the receiver's namespace send itself the
// numbers of what came there for others, with the programs' own mark.
func TestTruthLocalReplayed(t *testing.T) {
	testutil.Leaks(t)
	for _, network := range []string{"udp4", "udp6", "udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			lab := newLocalLab(t)
			cursor := localCursor(t, lab)
			addr := lab.ServerAddr4
			if network == "udp6" {
				addr = lab.ServerAddr6
			}
			first := cursor()
			if network == "tcp" {
				sendTCPMetadata(t, lab, addr)
			} else {
				server := listenUDP(t, lab.Server, network, &net.UDPAddr{Port: 9000})
				client := listenUDP(t, lab.Client, network, &net.UDPAddr{})
				var md sockmeta.Metadata
				must(t, md.SetUint64(localKey, victimMagic))
				for range 4 {
					must1(t)(client.WriteMetadata([]byte("with"), &md, netip.AddrPortFrom(addr, 9000)))
					if _, _, ok := receive(t, server, "with"); !ok {
						t.Fatal("metadata did not cross")
					}
				}
			}
			last := cursor()
			if first == last {
				t.Fatal("nothing crossed")
			}
			f, own := newReplayer(t, lab)
			for number := first - 3; number < last+3; number++ {
				// Numbers had 32 bits once.
				for _, n := range []uint64{number, number & (1<<32 - 1), (number + 2) & (1<<32 - 1)} {
					must(t, f.send("replay", 3<<61|n))
					if got, _, ok := receive(t, own, "replay"); ok {
						t.Errorf("number %d: %v", n, &got)
					}
				}
			}
		})
	}
}

// localCursor returns what reads the number that the next packet gets.
func localCursor(t *testing.T, lab *localLab) func() uint64 {
	t.Helper()
	inst := attachedMap(t, lab.cgroup, ebpf.AttachCGroupInetEgress, "sockmeta_inst")
	return func() uint64 {
		t.Helper()
		b, err := inst.LookupBytes(uint32(0))
		must(t, err)
		// It is the instance's last word.
		return binary.NativeEndian.Uint64(b[len(b)-8:])
	}
}

// TestTruthLocalOnce has somebody bind the port that a sender gave up, and send the number
// of the sender's metadata again.
func TestTruthLocalOnce(t *testing.T) {
	testutil.Leaks(t)
	lab := newLocalLab(t)
	cursor := localCursor(t, lab)
	to := netip.MustParseAddrPort("127.0.0.1:9000")
	server := listenUDP(t, lab.Server, "udp4", net.UDPAddrFromAddrPort(to))
	victim := listenUDP(t, lab.Server, "udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9300})
	var md sockmeta.Metadata
	must(t, md.SetUint64(localKey, victimMagic))
	must1(t)(victim.WriteMetadata([]byte("victim's"), &md, to))
	if _, _, ok := receive(t, server, "victim's"); !ok {
		t.Fatal("metadata did not cross")
	}
	must(t, victim.Close())

	next := cursor()
	var c *net.UDPConn
	must(t, lab.Server.Do(func() (err error) {
		c, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9300})
		return err
	}))
	defer c.Close()
	must(t, onSocket(c, sendByTime))
	for number := next - 4; number < next+4; number++ {
		oob := cmsg.Append(nil, unix.SOL_SOCKET, unix.SCM_TXTIME, binary.NativeEndian.AppendUint64(nil, number))
		_, _, err := c.WriteMsgUDPAddrPort([]byte("again"), oob, to)
		must(t, err)
		if got, _, ok := receive(t, server, "again"); ok {
			t.Errorf("number %d: %v", number, &got)
		}
	}
}

// newReplayer makes a forger's two sockets in the server's namespace.
func newReplayer(t *testing.T, lab *localLab) (*forger, *sockmeta.UDPConn) {
	t.Helper()
	p := *lab.Pair
	p.Client, p.ClientIf = lab.Server, lab.ServerIf
	f, c, err := newForger(&p)
	must(t, err)
	t.Cleanup(func() { _, _ = f.Close(), c.Close() })
	return f, c
}

// sendTCPMetadata has a connection's metadata come to a server.
func sendTCPMetadata(t *testing.T, lab *localLab, addr netip.Addr) {
	t.Helper()
	var l *sockmeta.TCPListener
	must(t, lab.Server.Do(func() (err error) {
		l, err = sockmeta.ListenTCP("tcp", &net.TCPAddr{})
		return err
	}))
	t.Cleanup(func() { _ = l.Close() })
	var md sockmeta.Metadata
	must(t, md.SetUint64(localKey, victimMagic))
	must(t, lab.Client.Do(func() error {
		d := sockmeta.Dialer{Metadata: &md, Require: true}
		c, err := d.Dial("tcp", netip.AddrPortFrom(addr, uint16(l.Addr().(*net.TCPAddr).Port)).String())
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = c.Close() })
		_, err = c.Write([]byte("with"))
		return err
	}))
	c, err := l.AcceptTCP()
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	must(t, c.SetReadDeadline(time.Now().Add(udpPatience)))
	read(t, c, "with")
}

// TestTruthLocalLapped has the receiver learn that there was metadata where newer
// packets took its place on the way.
func TestTruthLocalLapped(t *testing.T) {
	testutil.Leaks(t)
	lab := newLocalLab(t)
	server := listenUDP(t, lab.Server, "udp4", &net.UDPAddr{Port: 9000})
	client := listenUDP(t, lab.Client, "udp4", &net.UDPAddr{})
	to := netip.AddrPortFrom(lab.ServerAddr4, 9000)
	var md sockmeta.Metadata
	must(t, md.SetUint64(localKey, 1))
	must1(t)(client.WriteMetadata([]byte("first"), &md, to))
	if _, _, ok := receive(t, server, "first"); !ok {
		t.Fatal("metadata did not cross")
	}
	// The same datagram again, when others have had its slot: as it left, with a
	// delivery time from a sender whose programs are not ours.
	inst := attachedMap(t, lab.cgroup, ebpf.AttachCGroupInetEgress, "sockmeta_inst")
	b, err := inst.LookupBytes(uint32(0))
	must(t, err)
	number := binary.NativeEndian.Uint64(b[len(b)-8:]) - 1
	for range 1024 {
		must1(t)(client.WriteMetadata([]byte("newer"), &md, to))
		receive(t, server, "newer")
	}
	var plain *net.UDPConn
	must(t, lab.Client.Do(func() (err error) {
		plain, err = net.ListenUDP("udp4", nil)
		return err
	}))
	defer plain.Close()
	must(t, onSocket(plain, sendByTime))
	oob := cmsg.Append(nil, unix.SOL_SOCKET, unix.SCM_TXTIME, binary.NativeEndian.AppendUint64(nil, number))
	_, _, err = plain.WriteMsgUDPAddrPort([]byte("late"), oob, to)
	must(t, err)
	if got, _, ok := receive(t, server, "late"); ok || !got.Flags().Has(cmsg.FlagSenderLost) {
		t.Errorf("%v", &got)
	}
}

// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/testprog"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// senders returns a plain socket and one of sockmeta's, both in the cgroup, one
// that no program sees, and an address that takes what they send.
func (lab *benchLab) senders(b *testing.B) (elsewhere, plain *net.UDPConn, c *sockmeta.UDPConn, to netip.AddrPort) {
	b.Helper()
	var sink *net.UDPConn
	must(b, lab.Client.Do(func() (err error) {
		sink, err = net.ListenUDP("udp4", &net.UDPAddr{IP: lab.ClientAddr4.AsSlice()})
		return err
	}))
	b.Cleanup(func() { _ = sink.Close() })
	must(b, sink.SetReadBuffer(1))
	must(b, lab.Server.Do(func() (err error) {
		elsewhere, err = net.ListenUDP("udp4", &net.UDPAddr{IP: lab.ServerAddr4.AsSlice()})
		return err
	}))
	b.Cleanup(func() { _ = elsewhere.Close() })
	return elsewhere, lab.plainUDP(b), lab.udp(b), sink.LocalAddr().(*net.UDPAddr).AddrPort()
}

// BenchmarkWriteMetadata compares sends: without anything, with a mark as SO_MARK
// sets it, and with metadata, that of each datagram another.
func BenchmarkWriteMetadata(b *testing.B) {
	lab := newBenchLab(b)
	elsewhere, plain, c, to := lab.senders(b)
	payload := make([]byte, 64)
	mark := cmsg.Append(nil, unix.SOL_SOCKET, unix.SO_MARK, binary.NativeEndian.AppendUint32(nil, 1))
	var md sockmeta.Metadata
	var id uint64
	compare(b, contender{
		name: "so_mark",
		batch: batchOf(func() error {
			_, _, err := elsewhere.WriteMsgUDPAddrPort(payload, mark, to)
			return err
		}),
	}, contender{
		name: "plain",
		batch: batchOf(func() error {
			_, err := elsewhere.WriteToUDPAddrPort(payload, to)
			return err
		}),
	}, contender{
		name: "so_mark_here",
		batch: batchOf(func() error {
			_, _, err := plain.WriteMsgUDPAddrPort(payload, mark, to)
			return err
		}),
	}, contender{
		name: "metadata",
		batch: batchOf(func() error {
			id++
			if err := md.SetUint64(testprog.KeyID, id); err != nil {
				return err
			}
			_, err := c.WriteMetadata(payload, &md, to)
			return err
		}),
	})
}

// BenchmarkWritePlain compares sends without metadata: of a socket that no program
// sees, of one that did not opt in, and of one that did.
func BenchmarkWritePlain(b *testing.B) {
	lab := newBenchLab(b)
	elsewhere, plain, c, to := lab.senders(b)
	payload := make([]byte, 64)
	compare(b, contender{
		name: "elsewhere",
		batch: batchOf(func() error {
			_, err := elsewhere.WriteToUDPAddrPort(payload, to)
			return err
		}),
	}, contender{
		name: "here",
		batch: batchOf(func() error {
			_, err := plain.WriteToUDPAddrPort(payload, to)
			return err
		}),
	}, contender{
		name: "opted-in",
		batch: batchOf(func() error {
			_, err := c.WriteToUDPAddrPort(payload, to)
			return err
		}),
	})
}

// BenchmarkEgress is BenchmarkIngress for what leaves.
func BenchmarkEgress(b *testing.B) {
	lab := newBenchLab(b)
	_, plain, c, to := lab.senders(b)
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	must(b, err)
	b.Cleanup(func() { _ = stats.Close() })
	prog := lab.program(b, ebpf.AttachCGroupInetEgress)
	payload := make([]byte, 64)
	var md sockmeta.Metadata
	must(b, md.SetUint64(testprog.KeyID, 1))
	fresh := lab.udp(b)
	runTimes(b, prog, []traffic{
		{"metadata", batchOf(func() error { _, err := c.WriteMetadata(payload, &md, to); return err })},
		{"without", batchOf(func() error { _, err := c.WriteToUDPAddrPort(payload, to); return err })},
		{"never", batchOf(func() error { _, err := fresh.WriteToUDPAddrPort(payload, to); return err })},
		{"other", batchOf(func() error { _, err := plain.WriteToUDPAddrPort(payload, to); return err })},
	})
}

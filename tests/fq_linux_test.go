// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// An fqLab is a pair of hosts, of which the client's interface has the queueing
// discipline that heeds launch times. All is sent on one CPU, so that what leaves
// at once arrives in the order in which it was sent.
type fqLab struct {
	*netlab.Pair
	t      *testing.T
	a      *bpf.Attachment
	w      *wire
	to     netip.AddrPort
	server *net.UDPConn
	// client sends metadata, control nothing but plain datagrams.
	client  *sockmeta.UDPConn
	control *net.UDPConn
}

func newFQLab(t *testing.T) *fqLab {
	t.Helper()
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	lab := &fqLab{Pair: testutil.Pair(t), t: t}
	err := netlab.SetQdisc(lab.Client, lab.ClientIf, "fq")
	if errors.Is(err, unix.ENOENT) {
		t.Skip(err)
	}
	must(t, err)
	testutil.EnterCgroup(t)
	lab.a, err = bpf.Attach(bpf.Options{})
	must(t, err)
	t.Cleanup(func() { _ = lab.a.Close() })
	lab.w = watchWire(t, lab.a, lab.Client, lab.ClientIf, false, nil)
	must(t, lab.Server.Do(func() (err error) {
		lab.server, err = net.ListenUDP("udp4", udpAddr(lab.ServerAddr4, 0))
		return err
	}))
	t.Cleanup(func() { _ = lab.server.Close() })
	lab.to = lab.server.LocalAddr().(*net.UDPAddr).AddrPort()
	lab.client = listenUDP(t, lab.Client, "udp4", udpAddr(lab.ClientAddr4, 0))
	lab.control = dialUDP(t, lab.Client, nil, net.UDPAddrFromAddrPort(lab.to))
	pin(t)
	return lab
}

// pin keeps the test on one CPU until it ends.
func pin(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	var was, one unix.CPUSet
	must(t, unix.SchedGetaffinity(0, &was))
	cpu := 0
	for !was.IsSet(cpu) {
		cpu++
	}
	one.Set(cpu)
	must(t, unix.SchedSetaffinity(0, &one))
	t.Cleanup(func() {
		// A thread that stays locked ends with its goroutine.
		if unix.SchedSetaffinity(0, &was) == nil {
			runtime.UnlockOSThread()
		}
	})
}

// want reads datagrams and checks that they are those with the numbers.
func (lab *fqLab) want(ids ...uint64) {
	lab.t.Helper()
	must(lab.t, lab.server.SetReadDeadline(time.Now().Add(udpPatience)))
	b := make([]byte, 64)
	for i, id := range ids {
		n, err := lab.server.Read(b)
		must(lab.t, err)
		if got := binary.NativeEndian.Uint64(b[:n]); got != id {
			lab.t.Fatalf("datagram %d is %#x, want %#x", i, got, id)
		}
	}
}

// sendControl sends a datagram without anything.
func (lab *fqLab) sendControl(id uint64) {
	lab.t.Helper()
	_, err := lab.control.Write(rawPayload(id | noMetadata))
	must(lab.t, err)
}

const fqBatch = 50

// sendBatch sends datagrams with metadata, and returns their numbers and that of
// the plain one behind them.
func (lab *fqLab) sendBatch() []uint64 {
	lab.t.Helper()
	ids, carried := lab.trySendBatch()
	if carried != fqBatch {
		lab.t.Fatalf("%d of %d datagrams were sent with metadata", carried, fqBatch)
	}
	return ids
}

// trySendBatch is sendBatch for a sender that may find out that its programs are gone. It
// returns how many had a transmit slot, too.
func (lab *fqLab) trySendBatch() (ids []uint64, carried int) {
	lab.t.Helper()
	for id := range uint64(fqBatch) {
		_, err := lab.client.WriteMetadata(rawPayload(id), rawMetadata(id), lab.to)
		if !errors.Is(err, sockmeta.ErrNotSupported) {
			must(lab.t, err)
			carried++
		}
		ids = append(ids, id)
	}
	lab.sendControl(fqBatch)
	return append(ids, fqBatch|noMetadata), carried
}

// TestDetachedFQ sends through fq what goes on to carry the numbers of transmit
// slots when the programs that take them off are gone: it leaves at once.
func TestDetachedFQ(t *testing.T) {
	lab := newFQLab(t)
	lab.want(lab.sendBatch()...)
	before, _ := lab.w.counts(t)
	must(t, lab.a.Close())

	// The sender finds out while it sends, where that takes long.
	ids, carried := lab.trySendBatch()
	lab.want(ids...)
	if carried == 0 {
		t.Fatal("nothing was sent with a slot's number")
	}
	after, _ := lab.w.counts(t)
	const txEnd = uint64(1) << 32 // SOCKMETA_TX_END
	if n := after.Tstamp - before.Tstamp; n != uint64(carried) || after.LastTstamp >= txEnd {
		t.Errorf("%d datagrams with a time, the last %d, want %d below %d", n, after.LastTstamp, carried, txEnd)
	}
}

// TestAttachedFQ sends through fq: neither is anything held back that has no launch
// time, nor lost.
func TestAttachedFQ(t *testing.T) {
	lab := newFQLab(t)
	for range 4 {
		lab.want(lab.sendBatch()...)
	}
	tc, _ := lab.w.counts(t)
	if tc.Matched != 4*50 || tc.Absent != 4 || tc.Packets != 4*51 || tc.Tstamp != 0 {
		t.Errorf("counted %+v", tc)
	}
}

// TestLaunchTimeFQ has a datagram leave later than those that were sent after it.
func TestLaunchTimeFQ(t *testing.T) {
	txtime := func(launch uint64) []byte {
		return cmsg.Append(nil, unix.SOL_SOCKET, unix.SCM_TXTIME, binary.NativeEndian.AppendUint64(nil, launch))
	}
	for _, tt := range []struct {
		name string
		send func(c *sockmeta.UDPConn, id, launch uint64, to netip.AddrPort) error
	}{
		{"SetLaunchTime", func(c *sockmeta.UDPConn, id, launch uint64, to netip.AddrPort) error {
			md := rawMetadata(id)
			md.SetLaunchTime(launch)
			_, err := c.WriteMetadata(rawPayload(id), md, to)
			return err
		}},
		{"SCM_TXTIME in front", func(c *sockmeta.UDPConn, id, launch uint64, to netip.AddrPort) error {
			_, _, err := c.WriteMsgUDPAddrPort(rawPayload(id), rawMetadata(id).AppendCmsg(txtime(launch)), to)
			return err
		}},
		{"SCM_TXTIME behind", func(c *sockmeta.UDPConn, id, launch uint64, to netip.AddrPort) error {
			_, _, err := c.WriteMsgUDPAddrPort(rawPayload(id), append(rawRecord(id), txtime(launch)...), to)
			return err
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lab := newFQLab(t)
			other := listenUDP(t, lab.Client, "udp4", udpAddr(lab.ClientAddr4, 0))
			// What these do for the first time takes its time.
			lab.want(lab.sendBatch()...)
			_, err := other.WriteMetadata(rawPayload(1), rawMetadata(1), lab.to)
			must(t, err)
			lab.want(1)

			for delay := 200 * time.Millisecond; ; delay *= 2 {
				launch := monotonic(t) + uint64(delay)
				must(t, tt.send(lab.client, 1, launch, lab.to))
				tc, _ := lab.w.counts(t)
				_, err = other.WriteMetadata(rawPayload(2), rawMetadata(2), lab.to)
				must(t, err)
				lab.sendControl(3)
				inTime := monotonic(t) < launch
				if tc.LastTstamp != launch || tc.LastId != 1 {
					t.Errorf("datagram %d is to leave at %d, want 1 at %d", tc.LastId, tc.LastTstamp, launch)
				}
				if inTime {
					lab.want(2, 3|noMetadata, 1)
					break
				}
				// Too slow to tell.
				if delay > udpPatience/4 {
					t.Fatal("three datagrams take longer than ", delay)
				}
				b := make([]byte, 64)
				for range 3 {
					_, err := lab.server.Read(b)
					must(t, err)
				}
			}
			if tc, _ := lab.w.counts(t); tc.Mismatched != 0 || tc.Lost != 0 || tc.Unexpected != 0 {
				t.Errorf("counted %+v", tc)
			}
		})
	}
}

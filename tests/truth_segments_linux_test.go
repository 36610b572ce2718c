// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/binary"
	"net/netip"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// TestTruthTransmitSegments has software cut trains, behind a bridge that cannot, into
// packets that lie where the datagrams lay that were sent before: what reads at the
// bridge's port is not to take those datagrams' records for theirs.
func TestTruthTransmitSegments(t *testing.T) {
	testutil.RequireRoot(t)
	for name, tt := range map[string]struct{ gather, above bool }{
		"pages": {true, false}, "linear": {false, false}, "pages cut to linear": {false, true},
	} {
		gather := tt.gather
		t.Run(name, func(t *testing.T) {
			lab := newTxLab(t, bpf.DefaultPolicy())
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			must(t, netlab.AddBridge(lab.Client, "br0", lab.ClientIf))
			top := "br0"
			if tt.above {
				// It has bytes in pages, whatever is below it.
				top = "mv0"
				must(t, netlab.AddMacvlan(lab.Client, "br0", top))
			}
			must(t, netlab.AddAddr(lab.Client, top, netip.MustParsePrefix("198.51.100.1/24")))
			must(t, netlab.AddAddr(lab.Server, lab.ServerIf, netip.MustParsePrefix("198.51.100.2/24")))
			must(t, netlab.SetUp(lab.Client, "br0"))
			must(t, netlab.SetFeature(lab.Client, "br0", "tx-udp-segmentation", false))
			must(t, netlab.SetFeature(lab.Client, "br0", "tx-scatter-gather", gather))
			must(t, netlab.SetUp(lab.Client, top))
			c := lab.udp(t, "udp4", nil)
			to := netip.AddrPortFrom(netip.MustParseAddr("198.51.100.2"), txSinkPort)
			must1(t)(c.WriteToUDPAddrPort(lab.plain(), to))
			b := make([]byte, 1<<16)
			must1(t)(lab.sink.Read(b))

			const tasks = 8
			send := lab.senders(t, c, to, tasks)
			rounds := testutil.Scale(100)
			for range rounds {
				send()
				var train []byte
				for range tasks {
					train = append(train, lab.plain()...)
				}
				oob := cmsg.Append(nil, solUDP, unix.UDP_SEGMENT, binary.NativeEndian.AppendUint16(nil, uint16(len(train)/tasks)))
				_, _, err := c.WriteMsgUDPAddrPort(train, oob, to)
				must(t, err)
				for range tasks {
					must1(t)(lab.sink.Read(b))
				}
			}
			tc, _ := lab.wire.counts(t)
			t.Logf("TC: %+v", tc)
			if tc.Doubtful+tc.Absent == 0 || tc.Unexpected+tc.Mismatched > 0 {
				t.Errorf("packet %#x came with record %d, of %d datagrams with metadata, and as many without", tc.BadId, tc.BadRecord, rounds*tasks)
			}
			if tc.Matched < uint64(rounds*tasks)/2 {
				t.Error("datagrams by themselves have no records, either")
			}
		})
	}
}

// senders returns what sends a datagram with metadata by each of several tasks, which have
// places of their own for what is under way, and waits until all have come.
func (lab *txLab) senders(t *testing.T, c *sockmeta.UDPConn, to netip.AddrPort, tasks int) (send func()) {
	work := make([]chan func(), tasks)
	done := make(chan struct{})
	for i := range work {
		work[i] = make(chan func())
		t.Cleanup(func() { close(work[i]) })
		go func() {
			// It ends with the goroutine.
			runtime.LockOSThread()
			for f := range work[i] {
				f()
				done <- struct{}{}
			}
		}()
	}
	b := make([]byte, 1<<16)
	return func() {
		t.Helper()
		for _, w := range work {
			payload, md := lab.datagram(t)
			w <- func() {
				if _, err := c.WriteMetadata(payload, md, to); err != nil {
					t.Error(err)
				}
			}
			<-done
		}
		for range tasks {
			must1(t)(lab.sink.Read(b))
		}
	}
}

// TestTruthTransmitFragments has the kernel cut datagrams without metadata, behind an
// IPv6 routing header, into fragments that lie where datagrams with it lay.
func TestTruthTransmitFragments(t *testing.T) {
	testutil.RequireRoot(t)
	lab := newTxLab(t, bpf.DefaultPolicy())
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c := lab.udp(t, "udp6", nil)
	to := lab.to6()
	const tasks = 8
	send := lab.senders(t, c, to, tasks)
	// A segment routing header (RFC 8754) with two segments, of which one is left.
	routing := make([]byte, 40)
	routing[1], routing[2], routing[3], routing[4] = 4, 4, 1, 1
	dst := to.Addr().As16()
	copy(routing[24:], dst[:])
	route := func(b []byte) {
		withFD(t, c, func(fd int) error {
			return unix.SetsockoptString(fd, unix.IPPROTO_IPV6, unix.IPV6_RTHDR, string(b))
		})
	}
	rounds := testutil.Scale(100)
	for range rounds {
		send()
		route(routing)
		must1(t)(c.WriteToUDPAddrPort(append(lab.plain(), make([]byte, 9000)...), to))
		route(nil)
	}
	tc, _ := lab.wire.counts(t)
	if tc.Unexpected != 0 || tc.Matched != uint64(rounds*tasks) || tc.Absent < uint64(rounds)*2 {
		t.Errorf("%d of %d datagrams matched; of %d fragments %d came with record %d, for one", tc.Matched, rounds*tasks, tc.Absent+tc.Unexpected, tc.Unexpected, tc.BadRecord)
	}
}

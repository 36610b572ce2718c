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
)

// TestTruthTransmitSegments has software cut trains, behind a bridge that cannot, into
// packets that lie where the datagrams lay that were sent before: what reads at the
// bridge's port is not to take those datagrams' records for theirs.
func TestTruthTransmitSegments(t *testing.T) {
	testutil.RequireRoot(t)
	for name, gather := range map[string]bool{"pages": true, "linear": false} {
		t.Run(name, func(t *testing.T) {
			lab := newTxLab(t, bpf.DefaultPolicy())
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			must(t, netlab.AddBridge(lab.Client, "br0", lab.ClientIf))
			must(t, netlab.AddAddr(lab.Client, "br0", netip.MustParsePrefix("198.51.100.1/24")))
			must(t, netlab.AddAddr(lab.Server, lab.ServerIf, netip.MustParsePrefix("198.51.100.2/24")))
			must(t, netlab.SetUp(lab.Client, "br0"))
			must(t, netlab.SetFeature(lab.Client, "br0", "tx-udp-segmentation", false))
			must(t, netlab.SetFeature(lab.Client, "br0", "tx-scatter-gather", gather))
			c := lab.udp(t, "udp4", nil)
			to := netip.AddrPortFrom(netip.MustParseAddr("198.51.100.2"), txSinkPort)
			must1(t)(c.WriteToUDPAddrPort(lab.plain(), to))
			b := make([]byte, 1<<16)
			must1(t)(lab.sink.Read(b))

			// Each sender is a task, and so has a place of its own.
			const tasks = 8
			var work [tasks]chan func()
			done := make(chan struct{})
			for i := range work {
				work[i] = make(chan func())
				defer close(work[i])
				go func() {
					runtime.LockOSThread()
					for f := range work[i] {
						f()
						done <- struct{}{}
					}
				}()
			}
			rounds := testutil.Scale(100)
			for range rounds {
				for i := range work {
					payload, md := lab.datagram(t)
					work[i] <- func() {
						if _, err := c.WriteMetadata(payload, md, to); err != nil {
							t.Error(err)
						}
					}
					<-done
				}
				for range tasks {
					must1(t)(lab.sink.Read(b))
				}
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
			if gather && tc.Matched < uint64(rounds*tasks)/2 {
				t.Error("datagrams by themselves have no records, either")
			}
		})
	}
}

// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// TestTruthSlotsShortRings has a CPU whose few slots are used faster than the clock
// lets rounds through them begin: no handle is one that the next attachment could
// give, and the records that are lost say so.
func TestTruthSlotsShortRings(t *testing.T) {
	testutil.Leaks(t)
	if native() {
		t.Skip("recvmsg makes the records")
	}
	p := testutil.Pair(t)
	for _, slots := range []int{1, 2, 8, 128} {
		t.Run(fmt.Sprint(slots), func(t *testing.T) {
			cg := testutil.EnterCgroup(t)
			a, err := bpf.Attach(bpf.Options{Cgroup: cg.Path(), SlotsPerCPU: slots, Private: true})
			must(t, err)
			defer a.Close()
			c := listenUDP(t, p.Server, "udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			send := func() (handle uint64) {
				t.Helper()
				must1(t)(c.WriteTo([]byte("self"), c.LocalAddr()))
				oob := make([]byte, 256)
				_, n, _, _, err := c.NetConn().(*net.UDPConn).ReadMsgUDP(make([]byte, 10), oob)
				must(t, err)
				data, ok := cmsg.Find(oob[:n], unix.SOL_SOCKET, unix.SO_TIMESTAMPING)
				if !ok {
					data, ok = cmsg.Find(oob[:n], unix.SOL_SOCKET, unix.SO_TIMESTAMPING_NEW)
				}
				if !ok {
					t.Fatalf("no handle among % x", oob[:n])
				}
				return binary.NativeEndian.Uint64(data)*1e9 + binary.NativeEndian.Uint64(data[8:])
			}
			round := func(handle uint64) uint64 { return handle &^ (3 << 61) >> 24 }
			first := round(send())

			// As many rounds as take an hour of the clock.
			cursor := attachedMap(t, cg, ebpf.AttachCGroupInetIngress, "sockmeta_cursor")
			cpus, err := ebpf.PossibleCPU()
			must(t, err)
			const hour = uint64(time.Hour) >> 12
			must(t, cursor.Put(uint32(0), slices.Repeat([]uint64{hour * uint64(slots)}, cpus)))
			for range 2 * slots {
				got := round(send())
				var now unix.Timespec
				must(t, unix.ClockGettime(unix.CLOCK_MONOTONIC, &now))
				if begins := uint64(now.Nano()) >> 12; got > begins {
					t.Fatalf("a handle of round %d, the first being %d: an attachment that comes now begins at %d", got, first, begins)
				}
			}
			must1(t)(c.WriteTo([]byte("self"), c.LocalAddr()))
			var md sockmeta.Metadata
			if _, _, err := c.ReadMetadata(make([]byte, 10), &md); !errors.Is(err, sockmeta.ErrOverrun) {
				t.Errorf("%v, %v", &md, err)
			}
		})
	}
}

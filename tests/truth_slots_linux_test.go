// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"runtime"
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

// timeOf is when a handle was given, enciphered (bpf/c/slots.h): 0 of records that are lost.
func timeOf(handle uint64) uint64 { return handle &^ (3 << 61) >> 24 }

// TestTruthSlotsShortRings has a CPU whose few slots are used faster than the clock
// goes: no handle is given twice, and none follows from the one before.
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
			given := make(map[uint64]bool)
			lost, ascents, last := 0, 0, uint64(0)
			for range 50 {
				// A train is cut into datagrams, which come as fast as any can.
				const segments = 64
				train := cmsg.Append(nil, solUDP, unix.UDP_SEGMENT, binary.NativeEndian.AppendUint16(nil, 1))
				_, _, err := c.WriteMsgUDPAddrPort(make([]byte, segments), train, c.LocalAddr().(*net.UDPAddr).AddrPort())
				must(t, err)
				for range segments {
					oob := make([]byte, 256)
					_, n, _, _, err := c.NetConn().(*net.UDPConn).ReadMsgUDP(make([]byte, 10), oob)
					must(t, err)
					handle, err := handleIn(oob[:n])
					must(t, err)
					if timeOf(handle) == 0 {
						lost++
						continue
					}
					if given[handle] {
						t.Fatalf("handle %#x was given before", handle)
					}
					given[handle] = true
					if timeOf(handle) > last {
						ascents++
					}
					last = timeOf(handle)
				}
			}
			t.Logf("%d handles, %d records lost", len(given), lost)
			if len(given) == 0 {
				t.Error("there was no handle")
			}
			if n := len(given); n > 100 && (ascents < n/4 || ascents > n*3/4) {
				t.Errorf("of %d handles %d were higher than the one before", n, ascents)
			}
		})
	}
}

// TestTruthSlotsOverlap has a datagram wait while its socket goes from one attachment to
// another, whose count of slots is where the first one's was.
func TestTruthSlotsOverlap(t *testing.T) {
	testutil.Leaks(t)
	if native() {
		t.Skip("recvmsg makes the records")
	}
	p := testutil.Pair(t)
	cg := testutil.EnterCgroup(t)
	// What loops back is received on the CPU that sends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const slots = 256
	attach := func() *bpf.Attachment {
		a, err := bpf.Attach(bpf.Options{Cgroup: cg.Path(), SlotsPerCPU: slots, Private: true})
		must(t, err)
		return a
	}
	first := attach()
	defer first.Close()
	c := listenUDP(t, p.Server, "udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	plain := c.NetConn().(*net.UDPConn)
	peek := func(c *net.UDPConn) (handle uint64) {
		withFD(t, c, func(fd int) error {
			oob := make([]byte, 256)
			_, n, _, _, err := unix.Recvmsg(fd, make([]byte, 16), oob, unix.MSG_PEEK)
			if err == nil {
				handle, err = handleIn(oob[:n])
			}
			return err
		})
		return handle
	}
	send := func(payload string, mark uint32) {
		oob := cmsg.Append(nil, unix.SOL_SOCKET, unix.SO_MARK, binary.NativeEndian.AppendUint32(nil, mark))
		_, _, err := c.WriteMsgUDPAddrPort([]byte(payload), oob, c.LocalAddr().(*net.UDPAddr).AddrPort())
		must(t, err)
	}
	second := attach()
	defer second.Close()
	send("before", 0xbef)
	before := peek(plain)
	must(t, first.Close())
	c = sockmeta.WrapUDP(plain)
	must(t, c.Support().Err())

	// It goes to the slot that has the index of the other one's.
	cursor := attachedMap(t, cg, ebpf.AttachCGroupInetIngress, "sockmeta_cursor")
	cpus, err := ebpf.PossibleCPU()
	must(t, err)
	must(t, cursor.Put(uint32(0), slices.Repeat([]uint64{before % slots}, cpus)))
	send("after", 0xaf7e4)

	must(t, c.SetReadDeadline(time.Now().Add(udpPatience)))
	b := make([]byte, 16)
	var md sockmeta.Metadata
	n, _, err := c.ReadMetadata(b, &md)
	if string(b[:n]) != "before" || !errors.Is(err, sockmeta.ErrOverrun) {
		t.Errorf("%q with %v, %v", b[:n], &md, err)
	}
	if n, _, err = c.ReadMetadata(b, &md); string(b[:n]) != "after" || err != nil {
		t.Errorf("%q, %v", b[:n], err)
	}
}

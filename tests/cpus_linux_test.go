// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// readCPUs reads a list of CPUs, such as 0,2-3, of /sys/devices/system/cpu.
func readCPUs(t *testing.T, name string) (cpus []int) {
	t.Helper()
	b, err := os.ReadFile("/sys/devices/system/cpu/" + name)
	must(t, err)
	for _, part := range strings.Split(strings.TrimSpace(string(b)), ",") {
		first, last, ok := strings.Cut(part, "-")
		if !ok {
			last = first
		}
		from, err := strconv.Atoi(first)
		must(t, err)
		to, err := strconv.Atoi(last)
		must(t, err)
		for cpu := from; cpu <= to; cpu++ {
			cpus = append(cpus, cpu)
		}
	}
	return cpus
}

// onCPU runs f on a CPU. The thread is not used again.
func onCPU(cpu int, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		var set unix.CPUSet
		set.Set(cpu)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			done <- fmt.Errorf("CPU %d: %w", cpu, err)
			return
		}
		done <- f()
	}()
	return <-done
}

// TestCPUs receives on each CPU that is online, as many datagrams as each has slots
// for: each record is that of its datagram, says on which CPU it was made, and none has
// taken another's place. That some of the numbers in between may be of CPUs that are
// offline, or not there, must not matter: tests/vm has machines like that.
func TestCPUs(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	online, possible := readCPUs(t, "online"), readCPUs(t, "possible")
	t.Logf("CPUs %v of %v are online", online, possible)
	ns := testutil.Namespace(t)
	testutil.EnterCgroup(t)
	const slots = 16
	a, err := bpf.Attach(bpf.Options{SlotsPerCPU: slots})
	must(t, err)
	defer a.Close()
	highest := possible[len(possible)-1]
	if got := a.Info().Slots; got < uint32(slots*(highest+1)) {
		t.Errorf("%d slots, want %d for each CPU up to %d", got, slots, highest)
	}
	c := listenUDP(t, ns, "udp4", udpAddr(netip.MustParseAddr("127.0.0.1"), 0))
	to := c.LocalAddr()
	// Loopback's packets keep the mark of their sender, and are received where they
	// are sent.
	for _, cpu := range online {
		must(t, onCPU(cpu, func() error {
			for i := range slots {
				id := cpu<<8 | i
				if err := onSocket(c, func(fd int) error {
					return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, id)
				}); err != nil {
					return err
				}
				if _, err := c.WriteTo(binary.NativeEndian.AppendUint32(nil, uint32(id)), to); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	for _, cpu := range online {
		for i := range slots {
			var md sockmeta.Metadata
			b := make([]byte, 64)
			n, _, err := c.ReadMetadata(b, &md)
			must(t, err)
			id := uint32(cpu<<8 | i)
			if got := binary.NativeEndian.Uint32(b[:n]); got != id {
				t.Fatalf("datagram %#x, want %#x", got, id)
			}
			if mark, _ := md.Mark(); mark != id {
				t.Errorf("metadata of %#x, datagram %#x", mark, id)
			}
			if got, ok := md.CPU(); ok == native() || ok && int(got) != cpu {
				t.Errorf("datagram %#x was received on CPU %d, %v", id, got, ok)
			}
		}
	}
}

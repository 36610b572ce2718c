// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
)

// cProgram returns a program of examples/c, compiled here unless it is installed.
func cProgram(t *testing.T, name string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	return compileC(t, "../examples/c/"+name+".c")
}

// compileC returns the program that a file is the source of.
func compileC(t *testing.T, source string) string {
	t.Helper()
	cc, err := exec.LookPath("cc")
	if err != nil {
		testutil.Skip(t, err.Error())
	}
	path := filepath.Join(t.TempDir(), "program")
	cmd := exec.CommandContext(t.Context(), cc, "-Wall", "-Wextra", "-Werror", "-I", "../bpf/include", "-o", path, source)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

func runRawsend(t *testing.T, ns *netlab.Namespace, program string, to netip.AddrPort, first, count uint64) {
	t.Helper()
	must(t, ns.Do(func() error {
		cmd := exec.CommandContext(t.Context(), program, to.Addr().String(), strconv.Itoa(int(to.Port())),
			strconv.FormatUint(first, 10), strconv.FormatUint(count, 10))
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("rawsend: %w: %s", err, out)
		}
		return nil
	}))
}

// TestTracingRawsend has a C program send metadata: to nobody who knows of it, and
// to programs on the packet's way.
func TestTracingRawsend(t *testing.T) {
	testutil.RequireRoot(t)
	program := cProgram(t, "rawsend")
	const count = 20
	t.Run("ignored", func(t *testing.T) {
		testutil.Leaks(t)
		p := testutil.Pair(t)
		for _, server := range []netip.Addr{p.ServerAddr4, p.ServerAddr6} {
			var c *net.UDPConn
			must(t, p.Server.Do(func() (err error) {
				c, err = net.ListenUDP("udp", udpAddr(server, rawPort))
				return err
			}))
			defer c.Close()
			must(t, c.SetReadDeadline(time.Now().Add(udpPatience)))
			runRawsend(t, p.Client, program, netip.AddrPortFrom(server, rawPort), 1, count)
			b := make([]byte, 64)
			for i := range count {
				n, err := c.Read(b)
				must(t, err)
				if n != 8 || binary.NativeEndian.Uint64(b) != uint64(i+1) {
					t.Errorf("datagram %d is %x", i+1, b[:n])
				}
			}
		}
	})
	t.Run("read", func(t *testing.T) {
		lab := newRawLab(t, bpf.Options{})
		for _, server := range []netip.Addr{lab.ServerAddr4, lab.ServerAddr6} {
			first := lab.ids.Add(count) - count + 1
			runRawsend(t, lab.Client, program, netip.AddrPortFrom(server, rawPort), first, count)
			lab.with.Add(count)
		}
		lab.settle(t)
	})
}

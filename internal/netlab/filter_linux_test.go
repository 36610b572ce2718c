// SPDX-License-Identifier: Apache-2.0

package netlab_test

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
)

// TestAddFilter has a filter in each direction count what passes.
func TestAddFilter(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	p := testutil.Pair(t)
	seen, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer seen.Close()
	for i, d := range []netlab.Direction{netlab.Ingress, netlab.Egress} {
		prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Type: ebpf.SchedCLS, License: "Dual BSD/GPL", Instructions: countPackets(seen, i),
		})
		if err != nil {
			t.Fatal(err)
		}
		defer prog.Close()
		if err := netlab.AddFilter(p.Server, "missing0", d, prog.FD()); !errors.Is(err, unix.ENODEV) {
			t.Errorf("missing link: %v", err)
		}
		if err := netlab.AddFilter(p.Server, p.ServerIf, d, prog.FD()); err != nil {
			t.Fatal(err)
		}
	}
	server := listen(t, p.Server, netip.AddrPortFrom(p.ServerAddr4, 0))
	client := listen(t, p.Client, netip.AddrPortFrom(p.ClientAddr4, 0))
	addr := func(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }
	if _, err := client.WriteToUDPAddrPort([]byte("x"), addr(server)); err != nil {
		t.Fatal(err)
	}
	receive(t, server)
	if _, err := server.WriteToUDPAddrPort([]byte("y"), addr(client)); err != nil {
		t.Fatal(err)
	}
	receive(t, client)
	for i, name := range []string{"ingress", "egress"} {
		var n uint64
		if err := seen.Lookup(uint32(i), &n); err != nil || n == 0 {
			t.Errorf("%s: %d packets, %v", name, n, err)
		}
	}
}

// countPackets lets packets through and counts them in the i-th element of m.
func countPackets(m *ebpf.Map, i int) asm.Instructions {
	return asm.Instructions{
		asm.StoreImm(asm.RFP, -4, int64(i), asm.Word),
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.Mov.Imm(asm.R1, 1),
		asm.AddAtomic.Mem(asm.R0, asm.R1, asm.DWord, 0),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("pass"),
		asm.Return(),
	}
}

// SPDX-License-Identifier: Apache-2.0

package netlab_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
)

func TestMain(m *testing.M) {
	testutil.Main(m, map[string]func() error{
		"new": func() error {
			_, err := netlab.New()
			if !errors.Is(err, unix.EPERM) {
				return fmt.Errorf("New without privileges: %v", err)
			}
			return nil
		},
		"abandon": func() error {
			_, err := netlab.NewCgroup("abandoned")
			return err
		},
	})
}

// netns returns the identity of the calling thread's network namespace.
func netns(t testing.TB) string {
	t.Helper()
	link, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return link
}

func TestNamespace(t *testing.T) {
	testutil.Leaks(t)
	home := netns(t)
	ns := testutil.Namespace(t)
	if netns(t) != home {
		t.Fatal("New has moved the caller")
	}

	var inside string
	var conn net.PacketConn
	err := ns.Do(func() (err error) {
		inside = netns(t)
		conn, err = net.ListenPacket("udp", "[::1]:0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if inside == home {
		t.Error("Do runs at home")
	}
	if link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", ns.File().Fd())); err != nil || link != inside {
		t.Errorf("File is %q, %v, want %q", link, err, inside)
	}
	if _, err := conn.WriteTo([]byte("x"), conn.LocalAddr()); err != nil {
		t.Errorf("loopback: %v", err)
	}
	for range 100 {
		if err := ns.Do(func() error { return os.ErrExist }); err != os.ErrExist {
			t.Fatalf("Do returned %v", err)
		}
		if netns(t) != home {
			t.Fatal("a thread has stayed in the namespace")
		}
	}

	if err := errors.Join(ns.Close(), ns.Close()); err != nil {
		t.Error(err)
	}
	if err := ns.Do(func() error { return nil }); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Do after Close: %v", err)
	}
}

// A thread whose privileges are gone can't return from the namespace.
func TestNamespaceStuckThread(t *testing.T) {
	testutil.Leaks(t)
	ns := testutil.Namespace(t)
	home := netns(t)

	var tid int
	err := ns.Do(func() error {
		tid = unix.Gettid()
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		return unix.Capset(&hdr, &none[0])
	})
	if err != nil {
		t.Fatal(err)
	}
	task := fmt.Sprintf("/proc/self/task/%d", tid)
	eventually(t, "the thread to end", func() bool {
		_, err := os.Stat(task)
		return os.IsNotExist(err)
	})
	if netns(t) != home {
		t.Error("still in the namespace")
	}
}

func TestNamespaceUnwinding(t *testing.T) {
	testutil.Leaks(t)
	ns := testutil.Namespace(t)

	func() {
		defer func() {
			if v := recover(); v == nil || !strings.Contains(fmt.Sprint(v), "deliberate") {
				t.Errorf("recovered %v", v)
			}
		}()
		ns.Do(func() error { panic("deliberate") })
		t.Error("Do has returned from a panic")
	}()

	done := make(chan bool)
	go func() {
		returned := false
		defer func() { done <- returned }()
		ns.Do(func() error { runtime.Goexit(); return nil })
		returned = true
	}()
	if <-done {
		t.Error("Do has returned from Goexit")
	}
}

func TestNamespaceUnprivileged(t *testing.T) {
	testutil.Unprivileged(t, "new")
}

func TestPair(t *testing.T) {
	testutil.Leaks(t)
	p := testutil.Pair(t)

	for _, tc := range []struct{ client, server netip.Addr }{
		{p.ClientAddr4, p.ServerAddr4},
		{p.ClientAddr6, p.ServerAddr6},
	} {
		// A single datagram has to make it.
		server := listen(t, p.Server, netip.AddrPortFrom(tc.server, 0))
		client := listen(t, p.Client, netip.AddrPortFrom(tc.client, 0))
		to := server.LocalAddr().(*net.UDPAddr).AddrPort()
		if _, err := client.WriteToUDPAddrPort([]byte("x"), to); err != nil {
			t.Fatal(err)
		}
		if from := receive(t, server); from.Addr() != tc.client {
			t.Errorf("datagram came from %v, want %v", from, tc.client)
		}
	}

	if _, err := netlab.Index(p.Client, p.ServerIf); !errors.Is(err, unix.ENODEV) {
		t.Errorf("server's interface is with the client: %v", err)
	}
	for ns, name := range map[*netlab.Namespace]string{p.Client: p.ClientIf, p.Server: p.ServerIf} {
		var ifi *net.Interface
		if err := ns.Do(func() (err error) { ifi, err = net.InterfaceByName(name); return err }); err != nil {
			t.Fatal(err)
		}
		if index, err := netlab.Index(ns, name); err != nil || index != ifi.Index {
			t.Errorf("index of %s is %d, %v, want %d", name, index, err, ifi.Index)
		}
	}
	if err := errors.Join(p.Close(), p.Close()); err != nil {
		t.Error(err)
	}
}

// TestPairIntroduce keeps the hosts from asking for each other: all frames that are
// short.
func TestPairIntroduce(t *testing.T) {
	testutil.Leaks(t)
	p := testutil.Pair(t)
	const short = 500
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R2, asm.R1, 0, asm.Word), // __sk_buff.len
			asm.Mov.Imm(asm.R0, 0),                   // TC_ACT_OK
			asm.JGE.Imm(asm.R2, short, "exit"),
			asm.Mov.Imm(asm.R0, 2), // TC_ACT_SHOT
			asm.Return().WithSymbol("exit"),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer prog.Close()
	for ns, name := range map[*netlab.Namespace]string{p.Client: p.ClientIf, p.Server: p.ServerIf} {
		if err := netlab.AddFilter(ns, name, netlab.Egress, prog.FD()); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(p.Introduce(), p.Introduce()); err != nil {
		t.Fatal(err)
	}
	for _, addr := range []struct{ client, server netip.Addr }{
		{p.ClientAddr4, p.ServerAddr4},
		{p.ClientAddr6, p.ServerAddr6},
	} {
		server := listen(t, p.Server, netip.AddrPortFrom(addr.server, 0))
		client := listen(t, p.Client, netip.AddrPortFrom(addr.client, 0))
		for _, c := range []struct{ from, to *net.UDPConn }{{client, server}, {server, client}} {
			to := c.to.LocalAddr().(*net.UDPAddr).AddrPort()
			if _, err := c.from.WriteToUDPAddrPort(make([]byte, short), to); err != nil {
				t.Fatal(err)
			}
			receive(t, c.to)
		}
	}
}

func TestAddNeighbourErrors(t *testing.T) {
	testutil.Leaks(t)
	p := testutil.Pair(t)
	hw := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	if err := netlab.AddNeighbour(p.Client, "none0", p.ServerAddr4, hw); !errors.Is(err, unix.ENODEV) {
		t.Errorf("no such link: %v", err)
	}
	if err := netlab.AddNeighbour(p.Client, p.ClientIf, netip.Addr{}, hw); !errors.Is(err, unix.EINVAL) {
		t.Errorf("no address: %v", err)
	}
	if err := netlab.AddNeighbour(p.Client, p.ClientIf, p.ServerAddr4, hw[:3]); !errors.Is(err, unix.EINVAL) {
		t.Errorf("half a hardware address: %v", err)
	}
}

func TestPairCloseWithSocketsOpen(t *testing.T) {
	testutil.Leaks(t)
	p := testutil.Pair(t)
	held := listen(t, p.Client, netip.AddrPortFrom(p.ClientAddr4, 0))
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	to := netip.AddrPortFrom(p.ServerAddr4, 9)
	if _, err := held.WriteToUDPAddrPort([]byte("x"), to); !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("the link has survived: %v", err)
	}
}

func TestVethPair(t *testing.T) {
	testutil.Leaks(t)
	a, b := testutil.Namespace(t), testutil.Namespace(t)
	err := netlab.VethPair(a, b, netlab.VethConfig{
		A:   netlab.VethEnd{Name: "a0", RxQueues: 3, TxQueues: 2},
		B:   netlab.VethEnd{Name: "b0", Addrs: []netip.Prefix{netip.MustParsePrefix("198.51.100.1/25")}},
		MTU: 1400,
	})
	if err != nil {
		t.Fatal(err)
	}
	link := inspect(t, a, "a0")
	if link.MTU != 1400 || link.Flags&net.FlagRunning == 0 {
		t.Errorf("a0: mtu %d, flags %v", link.MTU, link.Flags)
	}
	link = inspect(t, b, "b0")
	if link.MTU != 1400 || len(link.addrs) == 0 || link.addrs[0] != "198.51.100.1/25" {
		t.Errorf("b0: mtu %d, addresses %v", link.MTU, link.addrs)
	}
	rx, tx, err := netlab.Queues(a, "a0")
	if err != nil {
		t.Fatal(err)
	}
	if rx != 3 || tx != 2 {
		t.Errorf("a0 has %d receive and %d transmit queues, want 3 and 2", rx, tx)
	}

	// The second end's name is taken, which must not leave the first.
	err = netlab.VethPair(a, b, netlab.VethConfig{A: netlab.VethEnd{Name: "a1"}, B: netlab.VethEnd{Name: "b0"}})
	if !errors.Is(err, unix.EEXIST) || !strings.HasPrefix(err.Error(), "netlab: add veth a1: ") {
		t.Errorf("name that is taken: %v", err)
	}
	// Nor must a failure later on.
	err = netlab.VethPair(a, b, netlab.VethConfig{
		A: netlab.VethEnd{Name: "a1"},
		B: netlab.VethEnd{Name: "b1", Addrs: []netip.Prefix{{}}},
	})
	if !errors.Is(err, unix.EINVAL) {
		t.Errorf("invalid address: %v", err)
	}
	for ns, name := range map[*netlab.Namespace]string{a: "a1", b: "b1"} {
		if _, err := netlab.Index(ns, name); !errors.Is(err, unix.ENODEV) {
			t.Errorf("%s was left behind: %v", name, err)
		}
	}

	if err := netlab.DeleteLink(a, "a0"); err != nil {
		t.Fatal(err)
	}
	if _, err := netlab.Index(b, "b0"); !errors.Is(err, unix.ENODEV) {
		t.Errorf("b0 has survived a0: %v", err)
	}
	if err := netlab.DeleteLink(a, "a0"); !errors.Is(err, unix.ENODEV) {
		t.Errorf("DeleteLink of nothing: %v", err)
	}
}

// Link-local addresses are subject to duplicate address detection unless that
// is off.
func TestLinkLocalUsable(t *testing.T) {
	p := testutil.Pair(t)
	for _, addr := range inspect(t, p.Client, p.ClientIf).addrs {
		prefix := netip.MustParsePrefix(addr)
		if prefix.Addr().IsLinkLocalUnicast() {
			listen(t, p.Client, netip.AddrPortFrom(prefix.Addr().WithZone(p.ClientIf), 0))
			return
		}
	}
	t.Error("no link-local address")
}

func TestAddVXLAN(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		t.Run(fmt.Sprintf("v6=%v", v6), func(t *testing.T) {
			p := testutil.Pair(t)
			ca, sa := p.ClientAddr4, p.ServerAddr4
			if v6 {
				ca, sa = p.ClientAddr6, p.ServerAddr6
			}
			inner := [2]netip.Prefix{netip.MustParsePrefix("198.51.100.1/24"), netip.MustParsePrefix("198.51.100.2/24")}
			supported(t, netlab.AddVXLAN(p.Client, "vx0", 42, ca, sa, 4789, p.ClientIf))
			supported(t, netlab.AddVXLAN(p.Server, "vx0", 42, sa, ca, 4789, p.ServerIf))
			for i, ns := range []*netlab.Namespace{p.Client, p.Server} {
				if err := errors.Join(netlab.AddAddr(ns, "vx0", inner[i]), netlab.SetUp(ns, "vx0")); err != nil {
					t.Fatal(err)
				}
			}
			exchange(t, p.Client, p.Server, inner[0].Addr(), inner[1].Addr())
		})
	}

	p := testutil.Pair(t)
	if err := netlab.AddVXLAN(p.Client, "vx1", 1, p.ClientAddr4, p.ServerAddr6, 4789, p.ClientIf); !errors.Is(err, unix.EINVAL) {
		t.Errorf("mixed families: %v", err)
	}
	if err := netlab.AddVXLAN(p.Client, "vx1", 1, p.ClientAddr4, p.ServerAddr4, 4789, "nope0"); !errors.Is(err, unix.ENODEV) {
		t.Errorf("no device: %v", err)
	}
}

func TestAddVLAN(t *testing.T) {
	p := testutil.Pair(t)
	supported(t, netlab.AddVLAN(p.Client, p.ClientIf, "v7", 7))
	supported(t, netlab.AddVLAN(p.Server, p.ServerIf, "v7", 7))
	a, b := netip.MustParsePrefix("198.51.100.1/24"), netip.MustParsePrefix("198.51.100.2/24")
	err := errors.Join(
		netlab.AddAddr(p.Client, "v7", a), netlab.SetUp(p.Client, "v7"),
		netlab.AddAddr(p.Server, "v7", b), netlab.SetUp(p.Server, "v7"),
	)
	if err != nil {
		t.Fatal(err)
	}
	exchange(t, p.Client, p.Server, a.Addr(), b.Addr())
}

func TestAddDummy(t *testing.T) {
	ns := testutil.Namespace(t)
	supported(t, netlab.AddDummy(ns, "d0"))
	if err := netlab.SetUp(ns, "d0"); err != nil {
		t.Fatal(err)
	}
	if link := inspect(t, ns, "d0"); link.Flags&net.FlagUp == 0 {
		t.Errorf("flags are %v", link.Flags)
	}
}

func TestAddAddr(t *testing.T) {
	ns := testutil.Namespace(t)
	addr := netip.MustParsePrefix("203.0.113.7/32")
	if err := netlab.AddAddr(ns, "lo", addr); err != nil {
		t.Fatal(err)
	}
	err := netlab.AddAddr(ns, "lo", addr)
	if !errors.Is(err, unix.EEXIST) || !strings.HasPrefix(err.Error(), "netlab: add address 203.0.113.7/32 to lo: ") {
		t.Errorf("adding it again: %v", err)
	}
	if err := netlab.AddAddr(ns, "nope0", addr); !errors.Is(err, unix.ENODEV) {
		t.Errorf("no link: %v", err)
	}
	if err := netlab.SetUp(ns, "nope0"); !errors.Is(err, unix.ENODEV) {
		t.Errorf("setting up no link: %v", err)
	}
}

func TestAddRoute(t *testing.T) {
	p := testutil.Pair(t)
	for _, tc := range []struct {
		dst    string
		gw     netip.Addr
		remote string
	}{
		{"203.0.113.0/24", p.ServerAddr4, "203.0.113.7"},
		{"2001:db8:1::/48", p.ServerAddr6, "2001:db8:1::7"},
	} {
		dst, remote := netip.MustParsePrefix(tc.dst), netip.MustParseAddr(tc.remote)
		err := errors.Join(
			netlab.AddAddr(p.Server, "lo", netip.PrefixFrom(remote, remote.BitLen())),
			netlab.AddRoute(p.Client, dst, tc.gw),
		)
		if err != nil {
			t.Fatal(err)
		}
		local := p.ClientAddr4
		if remote.Is6() {
			local = p.ClientAddr6
		}
		exchange(t, p.Client, p.Server, local, remote)
		if err := netlab.AddRoute(p.Client, dst, tc.gw); !errors.Is(err, unix.EEXIST) {
			t.Errorf("adding it again: %v", err)
		}
	}
	if err := netlab.AddRoute(p.Client, netip.MustParsePrefix("203.0.113.0/24"), p.ServerAddr6); !errors.Is(err, unix.EINVAL) {
		t.Errorf("mixed families: %v", err)
	}
}

func TestCgroup(t *testing.T) {
	testutil.Leaks(t)
	cg := testutil.Cgroup(t)
	if n := members(t, cg.Path()); n != 0 {
		t.Errorf("new cgroup has %d members", n)
	}
	leave, err := cg.Enter()
	if err != nil {
		t.Fatal(err)
	}
	if n := members(t, cg.Path()); n != 1 {
		t.Errorf("%d members after Enter", n)
	}
	if _, err := cg.Enter(); err == nil {
		t.Error("entered twice")
	}
	if err := errors.Join(leave(), leave()); err != nil {
		t.Fatal(err)
	}
	if n := members(t, cg.Path()); n != 0 {
		t.Errorf("%d members after leaving", n)
	}

	// Close leaves as well.
	if _, err := cg.Enter(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(cg.Close(), cg.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(cg.Path()); !os.IsNotExist(err) {
		t.Errorf("still there: %v", err)
	}
	if _, err := netlab.NewCgroup("a/b"); !errors.Is(err, unix.EINVAL) {
		t.Errorf("name with a slash: %v", err)
	}
}

func TestCgroupSweep(t *testing.T) {
	testutil.Leaks(t)
	// Within a cgroup of its own no other process's sweep interferes.
	outer := testutil.EnterCgroup(t)
	live := testutil.Cgroup(t)
	if out, err := testutil.RunChild(t, "abandon", testutil.ChildOptions{}); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	abandoned := func() []string {
		dirs, err := filepath.Glob(filepath.Join(outer.Path(), "sockmeta-abandoned-*"))
		if err != nil {
			t.Fatal(err)
		}
		return dirs
	}
	if n := len(abandoned()); n != 1 {
		t.Fatalf("the child has left %d cgroups, want 1", n)
	}
	testutil.Cgroup(t)
	if dirs := abandoned(); len(dirs) != 0 {
		t.Errorf("%s were not removed", dirs)
	}
	if _, err := os.Stat(live.Path()); err != nil {
		t.Errorf("a live process's cgroup was removed: %v", err)
	}
}

func supported(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip("not supported by this kernel: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func listen(t *testing.T, ns *netlab.Namespace, addr netip.AddrPort) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	err := ns.Do(func() (err error) {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func receive(t *testing.T, conn *net.UDPConn) netip.AddrPort {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, from, err := conn.ReadFromUDPAddrPort(make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	return from
}

// exchange sends a datagram from the address src in a to dst in b.
func exchange(t *testing.T, a, b *netlab.Namespace, src, dst netip.Addr) {
	t.Helper()
	server := listen(t, b, netip.AddrPortFrom(dst, 0))
	client := listen(t, a, netip.AddrPortFrom(src, 0))
	if _, err := client.WriteToUDPAddrPort([]byte("x"), server.LocalAddr().(*net.UDPAddr).AddrPort()); err != nil {
		t.Fatal(err)
	}
	if from := receive(t, server); from.Addr() != src {
		t.Errorf("datagram came from %v, want %v", from, src)
	}
}

type link struct {
	*net.Interface
	addrs []string
}

func inspect(t *testing.T, ns *netlab.Namespace, name string) (l link) {
	t.Helper()
	err := ns.Do(func() (err error) {
		if l.Interface, err = net.InterfaceByName(name); err != nil {
			return err
		}
		addrs, err := l.Addrs()
		for _, a := range addrs {
			l.addrs = append(l.addrs, a.String())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func members(t *testing.T, dir string) int {
	t.Helper()
	procs, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		t.Fatal(err)
	}
	return len(strings.Fields(string(procs)))
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting for %s", what)
		}
	}
}

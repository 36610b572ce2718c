// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/abi"
	"github.com/sockmeta/sockmeta-go/internal/forge"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

func init() { children["forgerContainer"] = forgerContainer }

// A forgedLab has victims and an honest sender, whose values cross to them where the
// kernel lets them, all in the test process, and forgers on the victims' host.
type forgedLab struct {
	*forgerLab
	a       *bpf.Attachment
	cgroup  *netlab.Cgroup
	outside *netlab.Cgroup
	local   error // why no metadata crosses
	watched []*forgerWatch
	honest  []*sockmeta.UDPConn
	to      []netip.AddrPort // of each honest sender
	numbers atomic.Uint64
	count   bpf.Counts
}

const honestPayload = "honest  "

var victimGroup = netip.MustParseAddr("239.1.2.3")

func newForgedLab(t *testing.T, tracing bool) *forgedLab {
	t.Helper()
	lab := &forgedLab{forgerLab: newForgerLab(t), outside: testutil.Cgroup(t)}
	lab.cgroup = testutil.EnterCgroup(t)
	var err error
	lab.a, err = bpf.Attach(bpf.Options{Cgroup: lab.cgroup.Path(), Tracing: tracing, Policy: &bpf.Policy{
		MaxPriority: 6, LaunchTimes: true,
		LocalKeys: []uint8{uint8(localKey), uint8(sockmeta.KeyServiceID), uint8(sockmeta.KeyTraceID)},
	}})
	must(t, err)
	t.Cleanup(func() { _ = lab.a.Close() })
	lab.local = errors.Join(lab.attachLocal(lab.Client, lab.ClientIf), lab.attachLocal(lab.Server, lab.ServerIf), lab.attachLocal(lab.Server, "lo"))
	if lab.local != nil && !errors.Is(lab.local, sockmeta.ErrNotSupported) {
		t.Fatal(lab.local)
	}
	for _, v := range lab.victims(t) {
		lab.watch(t, v)
	}
	lab.watchGroup(t)
	for _, h := range []struct {
		ns       *netlab.Namespace
		from, to netip.Addr
	}{
		{lab.Client, lab.ClientAddr4, lab.ServerAddr4}, {lab.Client, lab.ClientAddr6, lab.ServerAddr6},
		{lab.Server, netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.1")},
	} {
		lab.honest = append(lab.honest, listenUDP(t, h.ns, "udp", udpAddr(h.from, 9100)))
		lab.to = append(lab.to, netip.AddrPortFrom(h.to, forgerReaders[0].port))
	}
	return lab
}

func (lab *forgedLab) attachLocal(ns *netlab.Namespace, iface string) error {
	return ns.Do(func() error {
		_, err := lab.a.AttachLocal(iface)
		return err
	})
}

// watchGroup is a victim in a multicast group.
func (lab *forgedLab) watchGroup(t *testing.T) {
	t.Helper()
	var c *sockmeta.UDPConn
	must(t, lab.Server.Do(func() error {
		ifi, err := net.InterfaceByName(lab.ServerIf)
		if err == nil {
			c, err = sockmeta.ListenMulticastUDP("udp4", ifi, udpAddr(victimGroup, 9010))
		}
		return err
	}))
	t.Cleanup(func() { _ = c.Close() })
	r := forgerReaders[0]
	r.name, r.port = "multicast", 9010
	read, err := r.open(c)
	must(t, err)
	lab.watch(t, &forgerVictim{r, c, read})
}

// joinGroup has the victim get what comes to the group by another interface, too.
func (lab *forgedLab) joinGroup(iface string) error {
	index, err := netlab.Index(lab.Server, iface)
	if err != nil {
		return err
	}
	mreq := &unix.IPMreqn{Multiaddr: victimGroup.As4(), Ifindex: int32(index)}
	return onSocket(lab.watched[len(lab.watched)-1].conn, func(fd int) error {
		return os.NewSyscallError("setsockopt", unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, mreq))
	})
}

// A forgerWatch is a victim that reads all the time.
type forgerWatch struct {
	*forgerVictim
	forged, honest, sender atomic.Uint64
	wrong                  chan error // one of each kind
	done                   chan struct{}
}

func (lab *forgedLab) watch(t *testing.T, v *forgerVictim) {
	t.Helper()
	w := &forgerWatch{forgerVictim: v, wrong: make(chan error, 16), done: make(chan struct{})}
	lab.watched = append(lab.watched, w)
	must(t, v.conn.SetReadDeadline(time.Time{}))
	go func() {
		defer close(w.done)
		said := make(map[string]bool)
		for {
			b, md, err := v.read()
			if err != nil {
				if sockmeta.IsMetadataError(err) {
					continue
				}
				return
			}
			if l := w.look(lab, b, &md); l != nil && !said[l.What] {
				said[l.What] = true
				w.wrong <- fmt.Errorf("%s: %.8q %#x: %w\n%v, flags %v", v.name, b, lastWord(b), l, md, md.Flags())
			}
		}
	}()
	t.Cleanup(func() {
		_ = v.conn.Close()
		<-w.done
	})
}

func lastWord(b []byte) uint64 {
	if len(b) < 16 {
		return 0
	}
	return binary.NativeEndian.Uint64(b[8:])
}

// look compares a record with what the datagram is. Senders may say what they like of
// their own datagrams, and nothing comes with those of forgers, who did not.
func (w *forgerWatch) look(lab *forgedLab, b []byte, md *cmsg.Metadata) *forge.Lie {
	truth := lab.truth()
	truth.Interfaces = nil
	switch {
	case strings.HasPrefix(string(b), honestPayload):
		w.honest.Add(1)
		truth.Sender, _ = cmsg.AppendTLV(nil, localKey, b[8:16])
		var sender sockmeta.Metadata
		if md.Sender(&sender) {
			w.sender.Add(1)
		}
	case strings.HasPrefix(string(b), forgerPayload):
		w.forged.Add(1)
	default:
		return &forge.Lie{What: "payload", Says: "nobody sent it"}
	}
	return truth.Check(md)
}

// sendHonest sends a datagram by each honest sender.
func (lab *forgedLab) sendHonest() error {
	for i, c := range lab.honest {
		n := lab.numbers.Add(1)
		var md sockmeta.Metadata
		if err := md.SetUint64(localKey, n); err != nil {
			return err
		}
		b := binary.NativeEndian.AppendUint64([]byte(honestPayload), n)
		if _, err := c.WriteMetadata(b, &md, lab.to[i]); err != nil && !sockmeta.IsMetadataError(err) {
			return err
		}
	}
	return nil
}

// times are what a forger may put into skb->tstamp: numbers that are in use for
// something, as far as root can find them out, and others.
func (lab *forgedLab) times(t *testing.T) (times []uint64) {
	t.Helper()
	now := uint64(time.Now().UnixNano())
	times = []uint64{1, 2, 3, 1 << 22, 1<<32 - 1, 1 << 32, 1 << 61, 1 << 62, 3 << 61, 1<<63 - 1, 1 << 63, 1<<64 - 1,
		monotonic(t), now, now - 3600e9, now + 10, 12345}
	for i := range uint64(4) {
		times = append(times, abi.HandleBit|i, abi.HandleBit|1<<24|i, 3<<61|i)
	}
	for _, handle := range lab.handles(t) {
		times = append(times, handle, handle+1<<24, handle-1<<24, handle|1<<61, handle&^abi.HandleBit)
	}
	for _, n := range lab.localNumbers(t) {
		times = append(times, n, 3<<61|n&(1<<32-1), n+1024, 3<<61|(n+1024)&(1<<32-1), abi.HandleBit|n)
	}
	return times
}

// handles has a few that the kernel gave.
func (lab *forgedLab) handles(t *testing.T) (handles []uint64) {
	t.Helper()
	c := listenUDP(t, lab.Server, "udp4", &net.UDPAddr{Port: 9020})
	defer c.Close()
	withFD(t, c, carryHandles)
	for range 4 {
		must1(t)(c.WriteToUDPAddrPort([]byte("to itself"), netip.MustParseAddrPort("127.0.0.1:9020")))
		withFD(t, c, func(fd int) error {
			handle, err := readHandle(fd)
			handles = append(handles, handle)
			return err
		})
	}
	return handles
}

// localNumbers are those of the newest records that crossed between local sockets.
func (lab *forgedLab) localNumbers(t *testing.T) (numbers []uint64) {
	t.Helper()
	for id := ebpf.MapID(0); ; {
		next, err := ebpf.MapGetNextID(id)
		if errors.Is(err, os.ErrNotExist) {
			return numbers
		}
		must(t, err)
		id = next
		m, err := ebpf.NewMapFromID(id)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		must(t, err)
		info, err := m.Info()
		must(t, err)
		if info.Name == "sockmeta_locals" {
			for i := range m.MaxEntries() {
				if b, err := m.LookupBytes(i); err == nil && binary.NativeEndian.Uint64(b) > 1 && len(numbers) < 64 {
					numbers = append(numbers, binary.NativeEndian.Uint64(b))
				}
			}
		}
		must(t, m.Close())
	}
}

// orders are those of a forger at an interface.
func (lab *forgedLab) orders(t *testing.T, iface string, addrs ...netip.Addr) forgerOrders {
	t.Helper()
	o := forgerOrders{
		Interface: iface, Times: lab.times(t), Spoof: netip.AddrPortFrom(lab.ClientAddr4, 9100),
		// of this process, and of the kernel
		Memory: []uint64{uint64(uintptr(unsafe.Pointer(lab))), 0xffff888000000000, 1<<64 - 4096, 0},
	}
	for _, r := range forgerReaders {
		for _, addr := range addrs {
			o.Victims = append(o.Victims, netip.AddrPortFrom(addr, r.port))
		}
	}
	o.Victims = append(o.Victims, netip.AddrPortFrom(victimGroup, 9010))
	return o
}

// TestTruthForgerSockets has programs on the receivers' host put numbers, records and
// times of others, and made-up ones, into what they send to the victims, and to
// themselves, while an honest sender's values cross.
func TestTruthForgerSockets(t *testing.T) {
	for _, tracing := range []bool{false, true} {
		t.Run(fmt.Sprintf("tracing %v", tracing), func(t *testing.T) {
			if tracing && noTracing() != nil {
				t.Skip(noTracing())
			}
			testForgerSockets(t, tracing)
		})
	}
}

func testForgerSockets(t *testing.T, tracing bool) {
	testutil.Leaks(t)
	lab := newForgedLab(t, tracing)
	lo4, lo6 := netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()
	user := testutil.ChildOptions{UID: nobody, GID: nobody, NoNewPrivs: true}
	caps := []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW}
	for _, f := range []struct {
		name    string
		ns      *netlab.Namespace
		outside bool
		caps    []uintptr
		iface   string
		raw     string
		addrs   []netip.Addr
	}{
		{name: "user", ns: lab.Server, iface: lab.ServerIf, addrs: []netip.Addr{lo4, lo6, lab.ServerAddr4, lab.ServerAddr6}},
		{name: "user of another cgroup", ns: lab.Server, outside: true, iface: lab.ServerIf, addrs: []netip.Addr{lo4, lo6, lab.ServerAddr4}},
		{name: "root of the receiver's network", ns: lab.Server, caps: caps, iface: lab.ServerIf, raw: "lo", addrs: []netip.Addr{lo4, lab.ServerAddr4}},
		{name: "user beside the sender", ns: lab.Client, iface: lab.ClientIf, addrs: []netip.Addr{lab.ServerAddr4, lab.ServerAddr6}},
	} {
		t.Run(f.name, func(t *testing.T) {
			opts := user
			opts.Netns, opts.KeepCaps = f.ns, f.caps
			if f.outside {
				opts.Cgroup = lab.outside.Path()
			}
			lab.attack(t, "forgerSockets", opts, func() forgerOrders {
				o := lab.orders(t, f.iface, f.addrs...)
				o.Raw = f.raw
				return o
			})
		})
	}
	t.Run("container", func(t *testing.T) {
		testutil.RequireContainers(t)
		for _, cg := range []*netlab.Cgroup{lab.cgroup, lab.outside} {
			lab.attackFromContainer(t, cg)
		}
	})
}

// honestPause leaves the honest sender's numbers in use while a forger tries them.
const honestPause = 20 * time.Millisecond

// attack runs a forger, and says what the victims, or his own sockets, believed.
func (lab *forgedLab) attack(t *testing.T, name string, opts testutil.ChildOptions, orders func() forgerOrders) {
	t.Helper()
	before := make([][3]uint64, len(lab.watched))
	for i, w := range lab.watched {
		before[i] = [3]uint64{w.forged.Load(), w.honest.Load(), w.sender.Load()}
	}
	for range 40 {
		must(t, lab.sendHonest())
	}
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				stopped <- nil
				return
			case <-time.After(honestPause):
			}
			if err := lab.sendHonest(); err != nil {
				stopped <- err
				return
			}
		}
	}()
	opts.Env = append(opts.Env, orders().env())
	out, err := testutil.RunChild(t, name, opts)
	close(stop)
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	must(t, <-stopped)
	for i, w := range lab.watched {
		for end := time.Now().Add(udpPatience); w.forged.Load() == before[i][0] && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		for len(w.wrong) > 0 {
			t.Error(<-w.wrong)
		}
		if w.forged.Load() == before[i][0] {
			t.Errorf("%s: nothing of the forger's arrived", w.name)
		}
		if i > 0 {
			continue
		}
		if w.honest.Load() == before[i][1] || lab.local == nil && w.sender.Load() == before[i][2] {
			t.Errorf("%s: %d honest datagrams, %d with a sender's values", w.name, w.honest.Load(), w.sender.Load())
		}
	}
}

// attackFromContainer links a container's network to the victims' host.
func (lab *forgedLab) attackFromContainer(t *testing.T, cg *netlab.Cgroup) {
	t.Helper()
	here, there := netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("203.0.113.2")
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	theirs := os.NewFile(uintptr(fds[1]), "link")
	linked := make(chan error, 1)
	go func() {
		defer unix.Close(fds[0])
		linked <- func() error {
			ns, err := receiveNamespace(fds[0])
			if err != nil {
				return err
			}
			defer ns.Close()
			err = netlab.VethPair(lab.Server, ns, netlab.VethConfig{
				A: netlab.VethEnd{Name: "container0", Addrs: []netip.Prefix{netip.PrefixFrom(here, 24)}},
				B: netlab.VethEnd{Name: "eth0", Addrs: []netip.Prefix{netip.PrefixFrom(there, 24)}},
			})
			if err != nil {
				return err
			}
			err = errors.Join(
				netlab.AddRoute(ns, netip.PrefixFrom(lab.ServerAddr4, 32), here),
				lab.joinGroup("container0"),
			)
			if lab.local == nil {
				err = errors.Join(err, lab.attachLocal(lab.Server, "container0"), lab.attachLocal(ns, "eth0"))
			}
			_, werr := unix.Write(fds[0], []byte{1})
			return errors.Join(err, werr)
		}()
	}()
	lab.attack(t, "forgerContainer", testutil.ChildOptions{
		Container: true, NoNewPrivs: true, Cgroup: cg.Path(), Files: []*os.File{theirs},
	}, func() forgerOrders {
		o := lab.orders(t, "eth0", here, lab.ServerAddr4)
		o.Raw = "eth0"
		return o
	})
	_ = theirs.Close()
	must(t, <-linked)
	// The kernel takes its time to remove a namespace, and the link with it.
	if err := netlab.DeleteLink(lab.Server, "container0"); err != nil && !errors.Is(err, unix.ENODEV) {
		t.Error(err)
	}
}

func receiveNamespace(fd int) (*netlab.Namespace, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(fd, make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("recvmsg", err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		return nil, fmt.Errorf("%d messages of the container: %w", len(msgs), err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		return nil, err
	}
	return netlab.FromFile(os.NewFile(uintptr(fds[0]), "container")), nil
}

// forgerContainer is root of namespaces of its own. It has its network linked to the
// victims' first.
func forgerContainer() error {
	ns, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return err
	}
	link := int(testutil.ChildFile(0).Fd())
	if err := unix.Sendmsg(link, []byte{1}, unix.UnixRights(int(ns.Fd())), nil, 0); err != nil {
		return err
	}
	if n, err := unix.Read(link, make([]byte, 1)); n != 1 {
		return fmt.Errorf("no link to the victims: %w", err)
	}
	if err := netlab.SetUp(netlab.FromFile(ns), "lo"); err != nil {
		return err
	}
	return forgerSockets(forgerOrdersFromEnv())
}

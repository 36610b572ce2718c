// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"unsafe"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testprog"
)

const (
	// clientMTU leaves it to the wire to cut the client's packets.
	clientMTU = 65000
	// serverMTU is what XDP lets veth have.
	serverMTU = 3400

	clientIf, clientWireIf = "client0", "wirec0"
	serverIf, serverWireIf = "server0", "wires0"
)

var (
	clientAddrs = []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8::1/64")}
	serverAddrs = []netip.Prefix{netip.MustParsePrefix("192.0.2.2/24"), netip.MustParsePrefix("2001:db8::2/64")}
)

// A lab is two hosts, each a namespace, with the wire between their links in a
// third.
type lab struct {
	client, server, between *netlab.Namespace

	wire     *wire
	programs testprog.TagObjects
	producer link.Link
	setting  *setting
	// connections is how many there have been.
	connections int
}

func newLab() (l *lab, err error) {
	l = new(lab)
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	for _, ns := range []**netlab.Namespace{&l.client, &l.server, &l.between} {
		if *ns, err = netlab.New(); err != nil {
			return nil, err
		}
	}
	// The wire's ends are to say nothing themselves.
	if err := sysctl(l.between, "net/ipv6/conf/default/disable_ipv6", "1"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	client, err := connect(l.client, clientIf, clientAddrs, serverAddrs, l.between, clientWireIf, clientMTU)
	if err != nil {
		return nil, err
	}
	server, err := connect(l.server, serverIf, serverAddrs, clientAddrs, l.between, serverWireIf, serverMTU)
	if err != nil {
		return nil, err
	}
	for _, ns := range []*netlab.Namespace{l.client, l.server} {
		if err := tune(ns); err != nil {
			return nil, err
		}
	}
	if err := holdMerging(l.server, serverIf); err != nil {
		return nil, err
	}
	spec, err := testprog.Prepared(testprog.LoadTag())
	if err != nil {
		return nil, err
	}
	if err := spec.LoadAndAssign(&l.programs, nil); err != nil {
		return nil, err
	}
	l.wire, err = newWire(l.between, clientWireIf, serverWireIf, client, server)
	return l, err
}

func (l *lab) close() error {
	if l.wire != nil {
		l.wire.close()
	}
	var errs []error
	if l.producer != nil {
		errs = append(errs, l.producer.Close())
	}
	errs = append(errs, l.programs.Close())
	for _, side := range []struct {
		ns    *netlab.Namespace
		iface string
	}{{l.client, clientIf}, {l.server, serverIf}, {l.between, ""}} {
		if side.ns == nil {
			continue
		}
		if side.iface != "" {
			// Sockets may keep the namespace.
			_ = netlab.DeleteLink(side.ns, side.iface)
		}
		errs = append(errs, side.ns.Close())
	}
	return errors.Join(errs...)
}

// connect joins a host with the wire, and returns the hardware address of its end.
func connect(host *netlab.Namespace, iface string, addrs, others []netip.Prefix, wire *netlab.Namespace, wireIf string, mtu int) (hw [6]byte, err error) {
	err = netlab.VethPair(host, wire, netlab.VethConfig{
		A: netlab.VethEnd{Name: iface, Addrs: addrs}, B: netlab.VethEnd{Name: wireIf}, MTU: mtu,
	})
	if err != nil {
		return hw, err
	}
	for _, other := range others {
		if err := netlab.AddNeighbour(host, iface, other.Addr(), net.HardwareAddr{2, 0, 0, 0, 0, 1}); err != nil {
			return hw, err
		}
	}
	err = host.Do(func() error {
		ifi, err := net.InterfaceByName(iface)
		if err == nil {
			copy(hw[:], ifi.HardwareAddr)
		}
		return err
	})
	return hw, err
}

// sysctl sets one of a namespace.
func sysctl(ns *netlab.Namespace, name, value string) error {
	return ns.Do(func() error { return os.WriteFile("/proc/sys/"+name, []byte(value), 0) })
}

// tune makes a host that loses little time over losses.
func tune(ns *netlab.Namespace) error {
	for _, s := range [][2]string{
		{"net/ipv4/tcp_no_metrics_save", "1"},
		{"net/ipv4/tcp_fastopen", "0x607"}, // both sides, without cookies and socket options
		{"net/ipv4/ip_local_port_range", "32768 60999"},
	} {
		if err := sysctl(ns, s[0], s[1]); err != nil {
			return err
		}
	}
	// Linux 6.11
	if err := sysctl(ns, "net/ipv4/tcp_rto_min_us", "5000"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// apply gives the hosts a setting.
func (l *lab) apply(s setting) error {
	if l.setting != nil && *l.setting == s {
		return nil
	}
	old := l.setting
	l.setting = nil
	number := func(on bool) string {
		if on {
			return "1"
		}
		return "0"
	}
	cookies := "1" // where the backlog is full
	if s.cookies {
		cookies = "2"
	}
	backlog := "4096"
	if s.backlog {
		backlog = "1"
	}
	for _, v := range [][2]string{
		{"net/ipv4/tcp_sack", number(!s.noSACK)},
		{"net/ipv4/tcp_timestamps", number(!s.noStamps)},
		{"net/ipv4/tcp_syncookies", cookies},
		{"net/core/somaxconn", backlog},
	} {
		for _, ns := range []*netlab.Namespace{l.client, l.server} {
			if err := sysctl(ns, v[0], v[1]); err != nil {
				return err
			}
		}
	}
	if old == nil || old.generic != s.generic || old.gro != s.gro {
		if err := l.produce(s); err != nil {
			return err
		}
	}
	l.setting = &s
	return nil
}

// produce attaches the producer in the driver or behind GRO.
func (l *lab) produce(s setting) error {
	if l.producer != nil {
		if err := l.producer.Close(); err != nil {
			return err
		}
		l.producer = nil
	}
	flag := link.XDPDriverMode
	if s.generic {
		flag = link.XDPGenericMode
	}
	return l.server.Do(func() error {
		ifi, err := net.InterfaceByName(serverIf)
		if err != nil {
			return err
		}
		l.producer, err = link.AttachXDP(link.XDPOptions{Program: l.programs.TagFrame, Interface: ifi.Index, Flags: flag})
		if err != nil {
			return fmt.Errorf("XDP: %w", err)
		}
		// Attaching it may have turned it on.
		return setGRO(serverIf, s.gro)
	})
}

// ethtoolValue is struct ethtool_value.
type ethtoolValue struct{ cmd, data uint32 }

// setGRO is ethtool -K iface gro, in the thread's namespace.
func setGRO(iface string, on bool) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	v := ethtoolValue{cmd: unix.ETHTOOL_SGRO}
	if on {
		v.data = 1
	}
	req := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&v)}
	copy(req.name[:], iface)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req)))
	if errno != 0 {
		return os.NewSyscallError("ioctl", errno)
	}
	return nil
}

// holdMerging has GRO wait for more: the wire's frames come one by one, each with a
// turn of NAPI of its own. Only sysfs can tell the device, and that of this
// namespace nobody has mounted.
func holdMerging(ns *netlab.Namespace, iface string) error {
	return ns.Do(func() error {
		errs := make(chan error)
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			return err
		}
		defer home.Close()
		go func() { errs <- inOwnMounts(int(home.Fd()), iface) }()
		return <-errs
	})
}

// inOwnMounts never gives its thread back: the thread ends with the goroutine.
func inOwnMounts(netns int, iface string) error {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// The main thread is the process. While it is held here another
		// goroutine gets another.
		defer runtime.UnlockOSThread()
		errs := make(chan error)
		go func() { errs <- inOwnMounts(netns, iface) }()
		return <-errs
	}
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if err := unix.Setns(netns, unix.CLONE_NEWNET); err != nil {
		return os.NewSyscallError("setns", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return os.NewSyscallError("mount", err)
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return os.NewSyscallError("mount", err)
	}
	const ns = "50000"
	return os.WriteFile("/sys/class/net/"+iface+"/gro_flush_timeout", []byte(ns), 0)
}

// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// AddAddr gives a link an address, with the length of its network's prefix. An
// IPv6 address is usable at once, as it's not checked for duplicates.
func AddAddr(ns *Namespace, name string, addr netip.Prefix) error {
	op := fmt.Sprintf("add address %v to", addr)
	if !addr.IsValid() {
		return wrap(op, name, unix.EINVAL)
	}
	link, err := getLink(ns, name)
	if err != nil {
		return wrap(op, name, err)
	}
	r := newRequest(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, unix.IfAddrmsg{
		Family:    family(addr.Addr()),
		Prefixlen: uint8(addr.Bits()),
		Flags:     unix.IFA_F_NODAD,
		Index:     uint32(link.index),
	})
	r.bytes(unix.IFA_LOCAL, addr.Addr().AsSlice())
	r.bytes(unix.IFA_ADDRESS, addr.Addr().AsSlice())
	if err := r.change(ns); err != nil || !link.up || addr.Addr().Is4() {
		return wrap(op, name, err)
	}
	return wait(op, name, func() (bool, error) { return addressesReady(ns, name) })
}

// AddRoute routes packets for dst by way of gw.
func AddRoute(ns *Namespace, dst netip.Prefix, gw netip.Addr) error {
	if !dst.IsValid() || dst.Addr().BitLen() != gw.BitLen() {
		return wrap("add route to", dst.String(), fmt.Errorf("by way of %v: %w", gw, unix.EINVAL))
	}
	r := newRequest(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, unix.RtMsg{
		Family:   family(gw),
		Dst_len:  uint8(dst.Bits()),
		Table:    unix.RT_TABLE_MAIN,
		Protocol: unix.RTPROT_STATIC,
		Scope:    unix.RT_SCOPE_UNIVERSE,
		Type:     unix.RTN_UNICAST,
	})
	r.bytes(unix.RTA_DST, dst.Masked().Addr().AsSlice())
	r.bytes(unix.RTA_GATEWAY, gw.AsSlice())
	return wrap("add route to", dst.String(), r.change(ns))
}

// AddNeighbour tells a link a neighbour's hardware address for good: no packet waits
// until that was asked for.
func AddNeighbour(ns *Namespace, name string, addr netip.Addr, hw net.HardwareAddr) error {
	op := fmt.Sprintf("add neighbour %v to", addr)
	if !addr.IsValid() {
		return wrap(op, name, unix.EINVAL)
	}
	link, err := getLink(ns, name)
	if err != nil {
		return wrap(op, name, err)
	}
	r := newRequest(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, unix.NdMsg{
		Family:  family(addr),
		Ifindex: int32(link.index),
		State:   unix.NUD_PERMANENT,
	})
	r.bytes(unix.NDA_DST, addr.AsSlice())
	r.bytes(unix.NDA_LLADDR, hw)
	return wrap(op, name, r.change(ns))
}

func family(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// addressesReady reports whether all IPv6 addresses of an interface are at work:
// the kernel's work queue takes their tentative mark away and adds their local
// routes, also where there is no duplicate address detection.
func addressesReady(ns *Namespace, name string) (ready bool, err error) {
	err = ns.Do(func() error {
		addrs, err := os.ReadFile("/proc/thread-self/net/if_inet6")
		if errors.Is(err, os.ErrNotExist) {
			ready = true
			return nil
		}
		if err != nil {
			return err
		}
		routes, err := os.ReadFile("/proc/thread-self/net/ipv6_route")
		ready = haveRoutes(string(addrs), string(routes), name)
		return err
	})
	return ready, err
}

// rtfLocal marks the route of a local address (RTF_LOCAL, linux/ipv6_route.h).
const rtfLocal = 0x80000000

// haveRoutes says whether each address of the interface can be used. addrs are
// lines of address, index, prefix length, scope, flags and name, routes begin
// with the destination and end in flags and name, all numbers in hex
// (net/ipv6/addrconf.c, if6_seq_show, and net/ipv6/ip6_fib.c,
// ipv6_route_native_seq_show).
func haveRoutes(addrs, routes, name string) bool {
	local := make(map[string]bool)
	for line := range strings.Lines(routes) {
		f := strings.Fields(line)
		if len(f) != 10 {
			continue
		}
		if flags, err := strconv.ParseUint(f[8], 16, 32); err == nil && flags&rtfLocal != 0 {
			local[f[0]] = true
		}
	}
	for line := range strings.Lines(addrs) {
		f := strings.Fields(line)
		if len(f) != 6 || f[5] != name {
			continue
		}
		flags, err := strconv.ParseUint(f[4], 16, 32)
		if err != nil || flags&unix.IFA_F_TENTATIVE != 0 || !local[f[0]] {
			return false
		}
	}
	return true
}

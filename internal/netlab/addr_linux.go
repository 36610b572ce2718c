// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"fmt"
	"net/netip"

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
	return wrap(op, name, r.change(ns))
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

func family(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

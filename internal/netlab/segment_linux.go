// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// From linux/lwtunnel.h and linux/seg6_local.h.
const (
	lwtunnelSeg6Local = 7

	seg6LocalAction = 1
	seg6LocalTable  = 3
	seg6LocalNH4    = 4
	seg6EndDX4      = 6
	seg6EndDT6      = 7
)

// AddSegment has the headers of segment routing taken off packets to an IPv6 address,
// by way of a link: what is inside, IPv4 or IPv6, goes to its destination if that is an
// address of the host (End.DX4 and End.DT6, RFC 8986). The error matches
// errors.ErrUnsupported where the kernel cannot.
func AddSegment(ns *Namespace, segment netip.Addr, inside6 bool, dev string) error {
	op := fmt.Sprintf("add segment %v to", segment)
	link, err := getLink(ns, dev)
	if err != nil {
		return wrap(op, dev, err)
	}
	r := newRequest(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, unix.RtMsg{
		Family:   unix.AF_INET6,
		Dst_len:  128,
		Table:    unix.RT_TABLE_MAIN,
		Protocol: unix.RTPROT_STATIC,
		Scope:    unix.RT_SCOPE_UNIVERSE,
		Type:     unix.RTN_UNICAST,
	})
	r.bytes(unix.RTA_DST, segment.AsSlice())
	r.uint32(unix.RTA_OIF, uint32(link.index))
	r.uint16(unix.RTA_ENCAP_TYPE, lwtunnelSeg6Local)
	r.nest(unix.RTA_ENCAP, func() {
		if inside6 {
			r.uint32(seg6LocalAction, seg6EndDT6)
			r.uint32(seg6LocalTable, unix.RT_TABLE_LOCAL)
			return
		}
		r.uint32(seg6LocalAction, seg6EndDX4)
		r.bytes(seg6LocalNH4, netip.IPv4Unspecified().AsSlice())
	})
	return wrap(op, dev, r.change(ns))
}

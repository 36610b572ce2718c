// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"errors"

	"golang.org/x/sys/unix"
)

// From linux/pkt_sched.h and linux/pkt_cls.h, which x/sys/unix leaves out.
const (
	tcHandleClsact = 0xFFFF0000
	tcParentClsact = 0xFFFFFFF1

	tcaBPFFD        = 6
	tcaBPFName      = 7
	tcaBPFFlags     = 8
	bpfDirectAction = 1
)

// A Direction is the way of the packets that a filter sees.
type Direction uint32

// The values are the parents of the filters (TC_H_MIN_INGRESS, TC_H_MIN_EGRESS).
const (
	Ingress Direction = 0xFFFFFFF2
	Egress  Direction = 0xFFFFFFF3
)

// AddFilter makes a BPF program, of type SchedCLS, the only classifier of a link's
// packets in one direction, by which it decides on them. That is the way to attach
// one on kernels without TCX (Linux 6.6). The filter, unlike a BPF link, stays until
// the link goes.
func AddFilter(ns *Namespace, name string, d Direction, progFD int) error {
	const op = "add filter to"
	link, err := getLink(ns, name)
	if err != nil {
		return wrap(op, name, err)
	}
	qdisc := newRequest(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL, tcmsg{
		Ifindex: int32(link.index), Handle: tcHandleClsact, Parent: tcParentClsact,
	})
	qdisc.string(unix.TCA_KIND, "clsact")
	if err := qdisc.change(ns); err != nil && !errors.Is(err, unix.EEXIST) {
		return wrap(op, name, err)
	}
	const priority = 1
	// The protocol is in network byte order.
	protocol := uint32(unix.ETH_P_ALL&0xff<<8 | unix.ETH_P_ALL>>8)
	r := newRequest(unix.RTM_NEWTFILTER, unix.NLM_F_CREATE|unix.NLM_F_EXCL, tcmsg{
		Ifindex: int32(link.index), Handle: 1, Parent: uint32(d), Info: priority<<16 | protocol,
	})
	r.string(unix.TCA_KIND, "bpf")
	r.nest(unix.TCA_OPTIONS, func() {
		r.uint32(tcaBPFFD, uint32(progFD))
		r.string(tcaBPFName, "netlab")
		r.uint32(tcaBPFFlags, bpfDirectAction)
	})
	return wrap(op, name, r.change(ns))
}

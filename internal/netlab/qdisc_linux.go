// SPDX-License-Identifier: Apache-2.0

package netlab

import "golang.org/x/sys/unix"

// From linux/pkt_sched.h, which x/sys/unix leaves out.
const tcHandleRoot = 0xFFFFFFFF

// tcmsg is struct tcmsg.
type tcmsg struct {
	Family               uint8
	_                    uint8
	_                    uint16
	Ifindex              int32
	Handle, Parent, Info uint32
}

// SetQdisc gives a link the queueing discipline of a kind, with the kind's default
// settings, in place of the one that it has. The error is ENOENT where the kernel
// knows no such kind.
func SetQdisc(ns *Namespace, name, kind string) error {
	op := "set queueing discipline " + kind + " of"
	link, err := getLink(ns, name)
	if err != nil {
		return wrap(op, name, err)
	}
	r := newRequest(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, tcmsg{
		Ifindex: int32(link.index),
		Parent:  tcHandleRoot,
	})
	r.string(unix.TCA_KIND, kind)
	return wrap(op, name, r.change(ns))
}

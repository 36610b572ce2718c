// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
)

// From linux/veth.h, which x/sys/unix leaves out.
const vethInfoPeer = 1

// VethConfig describes the two ends of a veth link.
type VethConfig struct {
	A, B VethEnd
	// MTU of both ends. Zero is the kernel's default.
	MTU int
}

// VethEnd describes one end of a veth link.
type VethEnd struct {
	Name string
	// Addrs are the interface's addresses with the length of their
	// networks' prefixes.
	Addrs []netip.Prefix
	// RxQueues and TxQueues are numbers of queues. Zero is the kernel's
	// default. XDP programs attach to an end that has at least as many
	// receive queues as the other has transmit queues.
	RxQueues, TxQueues int
}

// VethPair joins the namespaces a and b by a veth link whose ends have
// addresses, are up and have carrier when it returns. On an error no link is
// left.
func VethPair(a, b *Namespace, cfg VethConfig) error {
	err := b.control(func(fd int) error {
		return addLink(a, "veth", cfg.A.Name,
			func(r *request) { cfg.A.encode(r, cfg.MTU) },
			func(r *request) {
				r.nest(vethInfoPeer, func() {
					r.append(unix.IfInfomsg{})
					r.string(unix.IFLA_IFNAME, cfg.B.Name)
					r.uint32(unix.IFLA_NET_NS_FD, uint32(fd))
					cfg.B.encode(r, cfg.MTU)
				})
			},
		)
	})
	if err != nil {
		return err
	}
	err = errors.Join(cfg.A.configure(a), cfg.B.configure(b))
	if err == nil {
		err = errors.Join(waitOperational(a, cfg.A.Name), waitOperational(b, cfg.B.Name))
	}
	if err != nil {
		return errors.Join(err, DeleteLink(a, cfg.A.Name))
	}
	return nil
}

// encode adds the attributes common to both ends.
func (e *VethEnd) encode(r *request, mtu int) {
	for _, attr := range []struct {
		typ   uint16
		value int
	}{
		{unix.IFLA_MTU, mtu},
		{unix.IFLA_NUM_RX_QUEUES, e.RxQueues},
		{unix.IFLA_NUM_TX_QUEUES, e.TxQueues},
	} {
		if attr.value != 0 {
			r.uint32(attr.typ, uint32(attr.value))
		}
	}
}

func (e *VethEnd) configure(ns *Namespace) error {
	for _, addr := range e.Addrs {
		if err := AddAddr(ns, e.Name, addr); err != nil {
			return err
		}
	}
	return SetUp(ns, e.Name)
}

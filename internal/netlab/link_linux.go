// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// From linux/if.h, which x/sys/unix leaves out.
const ifOperUp = 6

const carrierTimeout = 5 * time.Second

// AddDummy creates a dummy link, which swallows all that's sent through it.
// Like every new link but those of VethPair it is down.
func AddDummy(ns *Namespace, name string) error {
	return addLink(ns, "dummy", name, nil, nil)
}

// AddVLAN creates a link for the frames of parent tagged with the 802.1Q
// VLAN id.
func AddVLAN(ns *Namespace, parent, name string, id uint16) error {
	lower, err := getLink(ns, parent)
	if err != nil {
		return wrap("add vlan", name, fmt.Errorf("parent %s: %w", parent, err))
	}
	return addLink(ns, "vlan", name,
		func(r *request) { r.uint32(unix.IFLA_LINK, uint32(lower.index)) },
		func(r *request) { r.uint16(unix.IFLA_VLAN_ID, id) },
	)
}

// AddMacvlan creates a link with an address of its own on top of another (bridge mode).
func AddMacvlan(ns *Namespace, parent, name string) error {
	lower, err := getLink(ns, parent)
	if err != nil {
		return wrap("add macvlan", name, fmt.Errorf("parent %s: %w", parent, err))
	}
	const modeBridge = 4 // include/uapi/linux/if_link.h, enum macvlan_mode
	return addLink(ns, "macvlan", name,
		func(r *request) { r.uint32(unix.IFLA_LINK, uint32(lower.index)) },
		func(r *request) { r.uint32(unix.IFLA_MACVLAN_MODE, modeBridge) },
	)
}

// AddVXLAN creates one end of a VXLAN tunnel between the addresses local and
// remote, over UDP to port, by way of the link dev.
func AddVXLAN(ns *Namespace, name string, vni uint32, local, remote netip.Addr, port uint16, dev string) error {
	lower, err := getLink(ns, dev)
	if err != nil {
		return wrap("add vxlan", name, fmt.Errorf("device %s: %w", dev, err))
	}
	local, remote = local.Unmap(), remote.Unmap()
	if local.BitLen() == 0 || local.BitLen() != remote.BitLen() {
		return wrap("add vxlan", name, fmt.Errorf("no tunnel from %v to %v: %w", local, remote, unix.EINVAL))
	}
	localAttr, remoteAttr := uint16(unix.IFLA_VXLAN_LOCAL), uint16(unix.IFLA_VXLAN_GROUP)
	if local.Is6() {
		localAttr, remoteAttr = unix.IFLA_VXLAN_LOCAL6, unix.IFLA_VXLAN_GROUP6
	}
	return addLink(ns, "vxlan", name, nil, func(r *request) {
		r.uint32(unix.IFLA_VXLAN_ID, vni)
		r.uint32(unix.IFLA_VXLAN_LINK, uint32(lower.index))
		r.bytes(localAttr, local.AsSlice())
		r.bytes(remoteAttr, remote.AsSlice())
		r.bytes(unix.IFLA_VXLAN_PORT, binary.BigEndian.AppendUint16(nil, port))
	})
}

// AddBridge creates a bridge that has one port.
func AddBridge(ns *Namespace, name, port string) error {
	if err := addLink(ns, "bridge", name, nil, nil); err != nil {
		return err
	}
	bridge, err := getLink(ns, name)
	if err != nil {
		return wrap("add bridge", name, err)
	}
	r := newRequest(unix.RTM_SETLINK, 0, unix.IfInfomsg{})
	r.string(unix.IFLA_IFNAME, port)
	r.uint32(unix.IFLA_MASTER, uint32(bridge.index))
	return wrap("add to bridge", port, r.change(ns))
}

// SetUp brings a link up.
func SetUp(ns *Namespace, name string) error {
	r := newRequest(unix.RTM_SETLINK, 0, unix.IfInfomsg{Flags: unix.IFF_UP, Change: unix.IFF_UP})
	r.string(unix.IFLA_IFNAME, name)
	return wrap("set up", name, r.change(ns))
}

// DeleteLink removes a link, and with one end of a veth pair the other.
func DeleteLink(ns *Namespace, name string) error {
	r := newRequest(unix.RTM_DELLINK, 0, unix.IfInfomsg{})
	r.string(unix.IFLA_IFNAME, name)
	return wrap("delete link", name, r.change(ns))
}

// Index returns the interface index of a link.
func Index(ns *Namespace, name string) (int, error) {
	state, err := getLink(ns, name)
	return state.index, wrap("get link", name, err)
}

// addLink creates a link of the given kind. attrs adds attributes of the link
// and data those of its kind; either may be nil.
func addLink(ns *Namespace, kind, name string, attrs, data func(*request)) error {
	r := newRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, unix.IfInfomsg{})
	r.string(unix.IFLA_IFNAME, name)
	if attrs != nil {
		attrs(r)
	}
	r.nest(unix.IFLA_LINKINFO, func() {
		r.string(unix.IFLA_INFO_KIND, kind)
		if data != nil {
			r.nest(unix.IFLA_INFO_DATA, func() { data(r) })
		}
	})
	return wrap("add "+kind, name, r.change(ns))
}

type linkState struct {
	index       int
	up          bool // set up, with or without carrier
	operational bool
}

func getLink(ns *Namespace, name string) (linkState, error) {
	r := newRequest(unix.RTM_GETLINK, 0, unix.IfInfomsg{})
	r.string(unix.IFLA_IFNAME, name)
	reply, err := r.do(ns)
	if err == nil && len(reply) < unix.SizeofIfInfomsg {
		err = errShort
	}
	if err != nil {
		return linkState{}, err
	}
	oper, ok := attribute(reply[unix.SizeofIfInfomsg:], unix.IFLA_OPERSTATE)
	return linkState{
		index:       int(int32(binary.NativeEndian.Uint32(reply[4:]))),
		up:          binary.NativeEndian.Uint32(reply[8:])&unix.IFF_UP != 0,
		operational: ok && len(oper) == 1 && oper[0] == ifOperUp,
	}, nil
}

// waitOperational waits until a link transmits and its addresses work. Until
// the kernel has noticed the carrier of a link it drops what is sent through it.
func waitOperational(ns *Namespace, name string) error {
	return wait("wait for carrier on", name, func() (bool, error) {
		state, err := getLink(ns, name)
		if err != nil || !state.operational {
			return false, err
		}
		return addressesReady(ns, name)
	})
}

// wait waits for what the kernel does in its own time.
func wait(op, name string, ready func() (bool, error)) error {
	deadline := time.Now().Add(carrierTimeout)
	for {
		ok, err := ready()
		if err == nil && !ok && time.Now().After(deadline) {
			err = unix.ETIMEDOUT
		}
		if err != nil || ok {
			return wrap(op, name, err)
		}
		time.Sleep(time.Millisecond)
	}
}

// wrap names the operation and the interface that err, if any, is about.
func wrap(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("netlab: %s %s: %w", op, name, err)
}

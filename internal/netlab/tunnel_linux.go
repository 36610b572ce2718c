// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"cmp"
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// From linux/if_tunnel.h, which x/sys/unix leaves out.
const (
	greInputFlags = 2
	greInputKey   = 4
	greLocal      = 6
	greRemote     = 7
	greKey        = 0x2000 // of the flags, network byte order
	greExternal   = 18

	ipTunLocal  = 2
	ipTunRemote = 3
)

// A Tunnel is one end of a tunnel.
type Tunnel struct {
	// Kind is the link's: vxlan, geneve, gre, gretap, ip6gre, ip6gretap, ipip, sit
	// or ip6tnl.
	Kind          string
	Local, Remote netip.Addr
	// ID is the VNI, or the GRE key if it is not 0.
	ID uint32
	// External takes packets of every VNI or key: Local, Remote and ID have no meaning.
	// There is none for ipip, sit and ip6tnl.
	External bool
	// Port is the UDP port of vxlan and geneve. 0: 4789 and 6081.
	Port uint16
}

// AddTunnel creates one end of a tunnel.
func AddTunnel(ns *Namespace, name string, t Tunnel) error {
	return addLink(ns, t.Kind, name, nil, func(r *request) {
		switch t.Kind {
		case "vxlan":
			r.bytes(unix.IFLA_VXLAN_PORT, binary.BigEndian.AppendUint16(nil, cmp.Or(t.Port, 4789)))
			if t.External {
				r.bytes(unix.IFLA_VXLAN_COLLECT_METADATA, []byte{1})
				return
			}
			r.uint32(unix.IFLA_VXLAN_ID, t.ID)
			attr := uint16(unix.IFLA_VXLAN_GROUP)
			if t.Remote.Is6() {
				attr = unix.IFLA_VXLAN_GROUP6
			}
			r.bytes(attr, t.Remote.AsSlice())
		case "geneve":
			r.bytes(unix.IFLA_GENEVE_PORT, binary.BigEndian.AppendUint16(nil, cmp.Or(t.Port, 6081)))
			if t.External {
				r.bytes(unix.IFLA_GENEVE_COLLECT_METADATA, nil)
				return
			}
			r.uint32(unix.IFLA_GENEVE_ID, t.ID)
			attr := uint16(unix.IFLA_GENEVE_REMOTE)
			if t.Remote.Is6() {
				attr = unix.IFLA_GENEVE_REMOTE6
			}
			r.bytes(attr, t.Remote.AsSlice())
		case "gre", "gretap", "ip6gre", "ip6gretap":
			if t.External {
				r.bytes(greExternal, nil)
				return
			}
			r.bytes(greLocal, t.Local.AsSlice())
			r.bytes(greRemote, t.Remote.AsSlice())
			if t.ID != 0 {
				r.bytes(greInputFlags, binary.BigEndian.AppendUint16(nil, greKey))
				r.bytes(greInputKey, binary.BigEndian.AppendUint32(nil, t.ID))
			}
		default:
			r.bytes(ipTunLocal, t.Local.AsSlice())
			r.bytes(ipTunRemote, t.Remote.AsSlice())
		}
	})
}

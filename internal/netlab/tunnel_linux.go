// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// From linux/if_link.h and linux/if_tunnel.h, which x/sys/unix leaves out.
const (
	geneveID              = 1
	geneveRemote          = 2
	genevePort            = 5
	geneveCollectMetadata = 6

	vxlanCollectMetadata = 25

	greIFlags          = 2
	greOFlags          = 3
	greIKey            = 4
	greOKey            = 5
	greLocal           = 6
	greRemote          = 7
	greCollectMetadata = 18
	greKeyFlag         = 1 << 5 // 0x2000 in network byte order

	tunLocal           = 2
	tunRemote          = 3
	tunProto           = 9
	tunCollectMetadata = 19
)

// TunnelKind is a kind of device that takes the headers off what a tunnel brings.
type TunnelKind string

const (
	VXLAN  TunnelKind = "vxlan"
	Geneve TunnelKind = "geneve"
	GRE    TunnelKind = "gre"
	GRETap TunnelKind = "gretap"
	IPIP   TunnelKind = "ipip"
	SIT    TunnelKind = "sit"
	IP6Tnl TunnelKind = "ip6tnl"
)

// Tunnel describes a tunnel's end.
type Tunnel struct {
	Kind          TunnelKind
	Local, Remote netip.Addr
	// ID is the VNI or the key, and Port the UDP port, where the kind has them.
	ID   uint32
	Port uint16
	// External takes what any host sends, with any id: for routes and programs to
	// look at. Local, Remote and ID have no meaning then.
	External bool
}

// AddTunnel creates a tunnel's end, and brings it up. The error matches
// errors.ErrUnsupported where the kernel has no such devices.
func AddTunnel(ns *Namespace, name string, tun Tunnel) error {
	err := addLink(ns, string(tun.Kind), name, nil, func(r *request) { tun.encode(r) })
	if err != nil {
		return err
	}
	return SetUp(ns, name)
}

func (tun *Tunnel) encode(r *request) {
	switch tun.Kind {
	case VXLAN:
		r.bytes(unix.IFLA_VXLAN_PORT, binary.BigEndian.AppendUint16(nil, tun.Port))
		if tun.External {
			r.bytes(vxlanCollectMetadata, []byte{1})
			return
		}
		r.uint32(unix.IFLA_VXLAN_ID, tun.ID)
	case Geneve:
		r.bytes(genevePort, binary.BigEndian.AppendUint16(nil, tun.Port))
		if tun.External {
			r.bytes(geneveCollectMetadata, nil)
			return
		}
		r.uint32(geneveID, tun.ID)
		r.bytes(geneveRemote, tun.Remote.AsSlice())
	case GRE, GRETap:
		if tun.External {
			r.bytes(greCollectMetadata, nil)
			return
		}
		key := binary.BigEndian.AppendUint32(nil, tun.ID)
		r.uint16(greIFlags, greKeyFlag)
		r.uint16(greOFlags, greKeyFlag)
		r.bytes(greIKey, key)
		r.bytes(greOKey, key)
		r.bytes(greLocal, tun.Local.AsSlice())
		r.bytes(greRemote, tun.Remote.AsSlice())
	case IPIP, SIT, IP6Tnl:
		if tun.External {
			r.bytes(tunCollectMetadata, nil)
			return
		}
		r.bytes(tunLocal, tun.Local.AsSlice())
		r.bytes(tunRemote, tun.Remote.AsSlice())
		// IPv4 and IPv6 inside
		if tun.Kind == IP6Tnl {
			r.bytes(tunProto, []byte{0})
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

// Package sockmeta lets applications see what packets learnt on their way up
// the Linux stack: the values that XDP programs put in front of them
// (which service a load balancer chose, a trace id), the mark, the NIC's
// timestamp and hash, the VLAN tag.
//
// Its functions stand in for those of package net:
//
//	c, err := sockmeta.ListenUDP("udp", &net.UDPAddr{Port: 4433})
//	...
//	var md sockmeta.Metadata
//	n, from, err := c.ReadMetadata(buf, &md)
//	service, ok := md.Uint32(sockmeta.KeyServiceID)
//
// What they send takes metadata along for the programs on its way, and for
// receivers on the same host, as far as whoever attached the programs allows
// (bpf.Policy):
//
//	n, err = c.WriteMetadata(buf[:n], &md, from)
//
// A process that has CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON attaches the BPF
// programs to its own cgroup when it makes its first socket; they stay until it
// ends. One that has not gets metadata where somebody else attached them to its
// cgroup, or to one above (bpf.Attach), and else plain sockets, whose metadata
// calls return ErrNotSupported and why. ListenConfig.Require and Dialer.Require
// make that an error at once.
//
// Needs Linux 6.1 with BTF and a cgroup v2 hierarchy. The idea is from the talk
// "Marking Packets With Rich Metadata" (Linux Plumbers Conference 2024).
package sockmeta

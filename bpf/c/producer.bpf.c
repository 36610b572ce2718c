// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/*
 * A ready producer: gives each packet of an interface an id, the time at which
 * the driver had it, and the service that its destination port stands for.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include "../include/sockmeta.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Packets that this CPU has seen. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} packets SEC(".maps");

/* Destination port (host byte order) to service id. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u16);
	__type(value, __u32);
} services SEC(".maps");

/* Whether the kernel's areas have room for all three values. */
const volatile bool all_fit = true;

/* Packets that went on without metadata: no room, or no driver support. */
__u64 refused;

struct vlan_hdr {
	__be16 tci;
	__be16 proto;
};

/* UDP and TCP both begin with the source and the destination port. */
struct ports {
	__be16 source;
	__be16 dest;
};

/* Host byte order; 0 where the packet has none that can be read here, later
 * fragments among them.
 */
static __always_inline __u16 dest_port(struct xdp_md *ctx)
{
	void *p = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = p;
	struct ports *ports;
	__be16 proto;
	__u32 i;

	p = eth + 1;
	if (p > end)
		return 0;
	proto = eth->h_proto;
	for (i = 0; i < 2; i++) {
		struct vlan_hdr *vlan = p;

		if (proto != bpf_htons(ETH_P_8021Q) && proto != bpf_htons(ETH_P_8021AD))
			break;
		p = vlan + 1;
		if (p > end)
			return 0;
		proto = vlan->proto;
	}
	if (proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = p;

		if ((void *)(ip + 1) > end ||
		    (ip->protocol != IPPROTO_UDP && ip->protocol != IPPROTO_TCP) ||
		    ip->frag_off & bpf_htons(0x1fff))
			return 0;
		p += ip->ihl * 4;
	} else if (proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip6 = p;

		if ((void *)(ip6 + 1) > end ||
		    (ip6->nexthdr != IPPROTO_UDP && ip6->nexthdr != IPPROTO_TCP))
			return 0;
		p = ip6 + 1;
	} else {
		return 0;
	}
	ports = p;
	if ((void *)(ports + 1) > end)
		return 0;
	return bpf_ntohs(ports->dest);
}

SEC("xdp")
int sockmeta_producer(struct xdp_md *ctx)
{
	__u16 port = dest_port(ctx);
	__u32 zero = 0, *service;
	__u64 *count, value;

	count = bpf_map_lookup_elem(&packets, &zero);
	if (!count)
		return XDP_PASS;
	service = bpf_map_lookup_elem(&services, &port);
	if (service && sockmeta_put(ctx, SOCKMETA_KEY_SERVICE_ID, service, sizeof(*service)))
		goto refused;
	/* no other CPU gives the same id: the CPU is in the upper 16 bits */
	value = (__u64)bpf_get_smp_processor_id() << 48 | ++*count;
	if (sockmeta_put(ctx, SOCKMETA_KEY_PACKET_ID, &value, sizeof(value)))
		goto refused;
	value = bpf_ktime_get_ns();
	if (all_fit && sockmeta_put(ctx, SOCKMETA_KEY_KTIME, &value, sizeof(value)))
		goto refused;
	return XDP_PASS;

refused:
	__sync_fetch_and_add(&refused, 1);
	return XDP_PASS;
}

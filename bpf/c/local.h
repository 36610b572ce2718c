/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * Metadata between sockets of one host. On devices that somebody said so of
 * (Attachment.AttachLocal), the egress program puts what the policy lets cross
 * into a slot and its number into skb->tstamp, where loopback and veth leave it
 * alone: to them it is a delivery time. local.bpf.c, on the receiving device,
 * makes sure that the packet is from the other end, of the flow that the number
 * is of, and not merged with others. It marks the number, or else the kernel
 * would clear it on the packet's way to the socket (net/ipv4/ip_input.c,
 * skb_clear_delivery_time). cgroup ingress puts the slot's TLVs into the
 * receiver's record, as the value of SOCKMETA_KEY_SENDER.
 */
#ifndef SOCKMETA_LOCAL_H
#define SOCKMETA_LOCAL_H

#include "kfuncs.h"
#include "maps.h"
#include "seqlock.h"
#include "tcp.h"
#include "../include/sockmeta.h"

/* What fits into the value of SOCKMETA_KEY_SENDER, with the anchor behind. */
#define SENDER_MAX (SOCKMETA_AREA_MAX - SOCKMETA_ANCHOR_SIZE - 4)

/* How long the sender's part and the producer's may be where there are both:
 * the verifier adds up what each may be, and a record has SOCKMETA_SPARE bytes
 * behind it.
 */
#define BESIDE_MAX 124
#define PRODUCER_BESIDE_MAX 156

/* Addresses and ports of a packet that is not a fragment and has no IPv6
 * extension headers, each as the sender has them: remote is the receiver.
 */
static __always_inline int flow_of_packet(struct __sk_buff *ctx, struct sockmeta_flow *f)
{
	struct { __be16 source, dest; } ports;
	__u32 off;
	__u8 proto;

	if (ctx->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr ip;

		if (bpf_skb_load_bytes_relative(ctx, 0, &ip, sizeof(ip), BPF_HDR_START_NET) ||
		    ip.frag_off & bpf_htons(0x3fff))
			return 0;
		f->remote[2] = f->local[2] = V4_MAPPED;
		f->remote[3] = ip.daddr;
		f->local[3] = ip.saddr;
		proto = ip.protocol;
		off = ip.ihl * 4;
	} else if (ctx->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr ip6;

		if (bpf_skb_load_bytes_relative(ctx, 0, &ip6, sizeof(ip6), BPF_HDR_START_NET))
			return 0;
		__builtin_memcpy(f->remote, &ip6.daddr, 16);
		__builtin_memcpy(f->local, &ip6.saddr, 16);
		proto = ip6.nexthdr;
		off = sizeof(ip6);
	} else {
		return 0;
	}
	if ((proto != IPPROTO_UDP && proto != IPPROTO_TCP) ||
	    bpf_skb_load_bytes_relative(ctx, off, &ports, sizeof(ports), BPF_HDR_START_NET))
		return 0;
	f->remote_port = bpf_ntohs(ports.dest);
	f->local_port = bpf_ntohs(ports.source);
	/* what else tells flows apart */
	f->realm = proto;
	return 1;
}

static __always_inline int same_flow(const struct sockmeta_flow *a, const struct sockmeta_flow *b)
{
	const __u64 *p = (const __u64 *)a, *q = (const __u64 *)b;
	__u64 differ = 0;
	__u32 i;

	for (i = 0; i < sizeof(*a) / sizeof(*p); i++)
		differ |= p[i] ^ q[i];
	return !differ;
}

/* When the flow had a number last; several flows may share the place. */
static __always_inline __u64 *flow_time(const struct sockmeta_flow *f)
{
	const __u64 *word = (const __u64 *)f;
	__u64 hash = 0;
	__u32 i, index;

	for (i = 0; i < sizeof(*f) / sizeof(*word); i++)
		hash = (hash ^ word[i]) * 0x9e3779b97f4a7c15ULL;
	index = (hash >> 32) & (SOCKMETA_GIVEN - 1);
	return bpf_map_lookup_elem(&sockmeta_given, &index);
}

/* The device that a packet is at. */
static __always_inline void device_of(struct __sk_buff *ctx, struct sockmeta_local_dev *dev)
{
	dev->netns = BPF_CORE_READ(kernel_skb(ctx), dev, nd_net.net, net_cookie);
	dev->ifindex = ctx->ifindex;
}

/* The slot that this number may be in. */
static __always_inline struct sockmeta_local *local_slot(__u64 number)
{
	__u32 index = number & (SOCKMETA_LOCAL_SLOTS - 1);

	return bpf_map_lookup_elem(&sockmeta_locals, &index);
}

#endif

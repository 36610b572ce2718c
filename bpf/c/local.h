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
#include "packet.h"
#include "seqlock.h"
#include "../include/sockmeta.h"

/* What fits into the value of SOCKMETA_KEY_SENDER, with the anchor behind. */
#define SENDER_MAX (SOCKMETA_AREA_MAX - SOCKMETA_ANCHOR_SIZE - 4)

/* How long the sender's part and the producer's may be where there are both:
 * the verifier adds up what each may be, and a record has SOCKMETA_SPARE bytes
 * behind it.
 */
#define BESIDE_MAX 124
#define PRODUCER_BESIDE_MAX 156

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

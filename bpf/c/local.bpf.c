// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/*
 * TC ingress of a device whose packets come from sockets of this host: lets
 * their metadata through to the receiver, see local.h. Anybody can put any
 * number into skb->tstamp (SCM_TXTIME), so a number counts for nothing unless
 * the packet is from the other end of the device, and of the flow that the slot
 * was filled for: other namespaces may have the same addresses. Sockets that
 * have not opted in get no mark: it would show in their timestamps.
 */
#include "local.h"

#define TCX_NEXT -1

static __always_inline int receiver_opted_in(struct __sk_buff *ctx, const struct sockmeta_flow *f)
{
	struct bpf_sock_tuple t = {};
	struct bpf_sock *sk;
	__u32 size;
	int yes;

	size = fill_tuple(ctx, &t, f->local, f->local_port, f->remote, f->remote_port);
	if (f->realm == IPPROTO_UDP)
		sk = bpf_sk_lookup_udp(ctx, &t, size, BPF_F_CURRENT_NETNS, 0);
	else
		sk = bpf_sk_lookup_tcp(ctx, &t, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return 0;
	yes = !!bpf_sk_storage_get(&sockmeta_sks, sk, 0, 0);
	bpf_sk_release(sk);
	return yes;
}

/* Whether the record left by the other end of this device. */
static __always_inline int from_other_end(const struct sockmeta_local *slot,
					  const struct sockmeta_local_dev *dev)
{
	struct sockmeta_local_dev here = *dev;
	__u32 *other_end = bpf_map_lookup_elem(&sockmeta_local_devs, &here);

	if (!other_end)
		return 0;
	if (!*other_end)
		return !slot->other_end && slot->dev.ifindex == dev->ifindex &&
		       slot->dev.netns == dev->netns;
	return slot->dev.ifindex == *other_end && slot->other_end == dev->ifindex;
}

/* A number that an attachment has given, whether or not its slot still has it. */
static __always_inline int was_given(__u64 number)
{
	struct sockmeta_instance *inst = this_instance();

	return inst && number - inst->local_first < inst->local_cursor - inst->local_first;
}

/*
 * Whether an aggregate is the very packet that left, a train of segments, and
 * neither part of a train nor merged with anything (GRO keeps the first packet's
 * number, whatever the others have).
 *
 * Merged packets have the first one's address, and more bytes than it left with.
 * Pieces of a train have its number, and not its address: software makes them while
 * the train is still there (net/core/skbuff.c, skb_segment), and the one way to cut
 * that keeps the address (skb_segment_list) is for what GRO put into a list, behind
 * this program. Where XDP has pieces copied, the copy could be where the train was: it
 * lies in the page pool's memory (skb_pp_cow_data), in which no socket's packet
 * begins.
 */
static __always_inline int left_like_this(struct __sk_buff *ctx, const struct sockmeta_local *slot)
{
	struct sk_buff *skb = kernel_skb(ctx);
	/* the data begins with the link's header here */
	__u32 bytes = skb->len - (skb->network_header - skb->mac_header);

	if (bpf_core_field_exists(skb->pp_recycle) && BPF_CORE_READ_BITFIELD(skb, pp_recycle))
		return 0;
	return slot->skb == (__u64)skb && slot->bytes == bytes && slot->segs == ctx->gso_segs;
}

/* Whether as many segments have come with the number as left with it. A packet that was
 * no train has 0 or 1.
 */
static __always_inline int is_replay(struct __sk_buff *ctx, struct sockmeta_local *slot)
{
	__u32 left = slot->segs > 1 ? slot->segs : 1;

	return __sync_fetch_and_add(&slot->taken, ctx->gso_size ? left : 1) >= left;
}

/* What waits between the sender and here for longer is not looked for any more. */
#define LOST_NS (60 * 1000000000ULL)

/* Whether an aggregate whose first packet has no number may have swallowed one. */
static __always_inline int may_have_merged(const struct sockmeta_flow *flow)
{
	__u64 *last = flow_time(flow);

	return last && *last && bpf_ktime_get_coarse_ns() - *last < LOST_NS;
}

/* The number to go on with, 0 where it was lost, NOTHING where there was none. */
#define NOTHING (~0ULL)

static __always_inline __u64 number_of(struct __sk_buff *ctx, __u64 number,
				       const struct sockmeta_flow *flow)
{
	struct sockmeta_local_dev dev = {};
	struct sockmeta_local *slot;

	if (!number)
		return may_have_merged(flow) ? 0 : NOTHING;
	slot = local_slot(number);
	if (!slot)
		return NOTHING;
	if (read_seq(&slot->seq) != number)
		return 0;
	device_of(ctx, &dev);
	/* made up, or another's */
	if (!from_other_end(slot, &dev) || !same_flow(&slot->flow, flow))
		return ctx->gso_size && may_have_merged(flow) ? 0 : NOTHING;
	if (ctx->gso_size && !left_like_this(ctx, slot))
		return 0;
	if (is_replay(ctx, slot))
		return 0;
	slot->arrived = dev;
	return read_seq(&slot->seq) == number ? number : 0;
}

SEC("tcx/ingress")
int sockmeta_local(struct __sk_buff *ctx)
{
	struct sockmeta_flow flow = {};
	__u64 number = ctx->tstamp;

	if (ctx->tstamp_type != BPF_SKB_TSTAMP_DELIVERY_MONO) {
		/* a mark is only what this program puts on */
		if (is_local_number(number))
			bpf_skb_set_tstamp(ctx, 0, BPF_SKB_TSTAMP_UNSPEC);
		number = 0;
	} else if (!was_given(number)) {
		/* a delivery time */
		number = 0;
	}
	if ((!number && !ctx->gso_size) || !flow_of_packet(ctx, &flow))
		return TCX_NEXT;
	number = number_of(ctx, number, &flow);
	if (number == NOTHING || !receiver_opted_in(ctx, &flow))
		return TCX_NEXT;
	/* from now on it is a time of reception, which the kernel leaves alone */
	bpf_skb_set_tstamp(ctx, SOCKMETA_LOCAL_MARK | number, BPF_SKB_TSTAMP_UNSPEC);
	return TCX_NEXT;
}

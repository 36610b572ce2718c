/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/* The receiver's side of local.h: what the sender gave, in the receiver's record. */
#ifndef SOCKMETA_SENDER_H
#define SOCKMETA_SENDER_H

#include "local.h"

static __always_inline void put_anchor(struct sockmeta_record *rec, __u32 at)
{
	*(__u32 *)&rec->area[at] = bpf_htonl(SOCKMETA_ANCHOR(SOCKMETA_FORMAT_TLV));
}

/* Whether the producer's TLVs end at that byte: of one that goes on, the
 * sender's would become a part.
 */
static __always_inline int tlvs_end_at(const struct sockmeta_record *rec, __u32 at)
{
	__u32 off = 0, i;

	for (i = 0; i < PRODUCER_BESIDE_MAX / 4 && off < at; i++) {
		if (off > PRODUCER_BESIDE_MAX)
			return 0;
		/* for verifiers that do not remember the line above */
		barrier_var(off);
		off += SOCKMETA_TLV_SIZE(rec->area[(off & SOCKMETA_AREA_MAX) + 1]);
	}
	return off == at;
}

/*
 * Whether the packet is one that local.bpf.c has marked with that number. Marks can
 * be made up as numbers can (see sockmeta_ingress): the slot has to be of this
 * packet's flow, and to say that the packet came by this device, where local.bpf.c
 * takes off what it did not put on itself.
 *
 * Global, for the verifier to look at it once.
 */
__noinline int came_with(struct __sk_buff *ctx, __u64 number)
{
	struct sockmeta_local_dev dev = {};
	struct sockmeta_flow flow = {};
	struct sockmeta_local *slot;

	slot = local_slot(number);
	if (!slot || read_seq(&slot->seq) != number)
		return 0;
	device_of(ctx, &dev);
	return slot->arrived.netns == dev.netns && slot->arrived.ifindex == dev.ifindex &&
	       flow_of_packet(ctx, &flow) && same_flow(&slot->flow, &flow);
}

/*
 * Puts what the sender gave behind the producer's values, as one TLV in front
 * of the anchor: whatever a sender says, a producer has said it before.
 */
static __always_inline int put_sender(struct __sk_buff *ctx, struct sockmeta_record *rec,
				      __u64 number)
{
	struct sockmeta_local *slot;
	/* of 64 bits, as older verifiers forget what they know of others on the stack */
	__u64 at = 0, len;

	number &= ~SOCKMETA_LOCAL_MARK;
	if (!is_record(number) || !came_with(ctx, number))
		return 0;
	slot = local_slot(number);
	if (!slot || read_seq(&slot->seq) != number)
		return 0;
	/* a multiple of 4, which the mask tells the verifier, like the bound */
	len = slot->len & SOCKMETA_AREA_MAX;
	if (!len || len > SENDER_MAX)
		return 0;
	if (rec->area_len) {
		if (rec->format != SOCKMETA_FORMAT_TLV || rec->flags & SOCKMETA_F_UNANCHORED)
			return 0;
		at = (rec->area_len - SOCKMETA_ANCHOR_SIZE) & SOCKMETA_AREA_MAX;
		barrier_var(at);
		if (at > PRODUCER_BESIDE_MAX || len > BESIDE_MAX ||
		    at + len + 4 + SOCKMETA_ANCHOR_SIZE > SOCKMETA_AREA_MAX ||
		    !tlvs_end_at(rec, at))
			return 0;
		barrier_var(at);
		barrier_var(len);
		if (at > PRODUCER_BESIDE_MAX || len > BESIDE_MAX)
			return 0;
	}
	rec->area[at] = SOCKMETA_KEY_SENDER;
	rec->area[at + 1] = len;
	bpf_probe_read_kernel(rec->area + at + 2, len, slot->area);
	if (read_seq(&slot->seq) != number) {
		put_anchor(rec, at);
		return 0;
	}
	rec->area[at + len + 2] = 0;
	rec->area[at + len + 3] = 0;
	put_anchor(rec, at + len + 4);
	rec->area_len = at + len + 4 + SOCKMETA_ANCHOR_SIZE;
	return 1;
}

#endif

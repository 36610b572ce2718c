/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/* The sender's side of local.h: what of a record goes to a receiver on this host. */
#ifndef SOCKMETA_CROSS_H
#define SOCKMETA_CROSS_H

#include "local.h"

/* The TLVs of a record on their way to a receiver on this host, word by word. */
struct crossing {
	const struct sockmeta_sent *rec;
	struct sockmeta_local *to;
	const struct sockmeta_policy *policy;
	__u32 len;
	__u32 next;		/* where the next TLV begins */
	__u32 kept;
	__u32 keep;		/* whether the TLV may cross */
};

static long cross_word(__u32 i, struct crossing *c)
{
	__u32 at = i * sizeof(__u32), word;

	if (at >= c->len || at >= SENDER_MAX)
		return 1;
	word = *(__u32 *)&c->rec->area[at];
	if (at == c->next) {
		__u8 key = c->rec->area[at], len = c->rec->area[at + 1];

		c->next += SOCKMETA_TLV_SIZE(len);
		c->keep = c->policy->local[key >> 6] >> (key & 63) & 1;
		c->kept += c->keep;
		if (!c->keep) {
			if (key != SOCKMETA_KEY_PAD)
				count(local_keys);
			/* padding of the same length */
			word = 0;
			((__u8 *)&word)[1] = len;
		}
	} else if (!c->keep) {
		word = 0;
	}
	*(__u32 *)&c->to->area[at] = word;
	return 0;
}

/* Copies the TLVs whose keys may cross and returns their length, 0 where there
 * are none: the others become padding.
 */
static __always_inline __u32 cross(struct sockmeta_local *to, const struct sockmeta_sent *rec,
				   const struct sockmeta_policy *policy)
{
	struct crossing c = { .rec = rec, .to = to, .policy = policy, .len = rec->area_len };

	if (rec->format != SOCKMETA_FORMAT_TLV)
		return 0;
	/* the receiver's record has an anchor of its own */
	if (c.len >= SOCKMETA_ANCHOR_SIZE) {
		__u32 at = (c.len - SOCKMETA_ANCHOR_SIZE) & SOCKMETA_AREA_MAX;

		if (*(__u32 *)&rec->area[at] == bpf_htonl(SOCKMETA_ANCHOR(SOCKMETA_FORMAT_TLV)))
			c.len -= SOCKMETA_ANCHOR_SIZE;
	}
	if (c.len > SENDER_MAX)
		return 0;
	bpf_loop(SENDER_MAX / sizeof(__u32), cross_word, &c, 0);
	/* a row of TLVs ends where the area does */
	return c.kept && c.next == c.len ? c.len : 0;
}

/* Global, to be verified once and not for each caller. */
__noinline int go_local(struct __sk_buff *ctx, const struct sockmeta_sent *rec)
{
	struct sockmeta_local_dev dev = {};
	struct sockmeta_instance *inst = this_instance();
	struct sockmeta_flow flow = {};
	struct sockmeta_local *slot;
	__u64 number, *last;
	__u32 *other_end, len;

	if (!rec || !inst || !inst->policy.crosses || !rec->area_len)
		return 0;
	device_of(ctx, &dev);
	other_end = bpf_map_lookup_elem(&sockmeta_local_devs, &dev);
	if (!other_end || !flow_of_packet(ctx, &flow))
		return 0;
	number = __sync_fetch_and_add(&inst->local_cursor, 1);
	slot = local_slot(number);
	if (!slot)
		return 0;
	last = flow_time(&flow);
	if (last)
		*last = bpf_ktime_get_coarse_ns();
	if (claim(&slot->seq) == SOCKMETA_BUSY) {
		/* the receiver is to learn that there was something */
		ctx->tstamp = number;
		return 0;
	}
	slot->flow = flow;
	slot->dev = dev;
	slot->other_end = *other_end;
	slot->arrived.netns = 0;
	slot->taken = 0;
	slot->skb = (__u64)kernel_skb(ctx);
	slot->bytes = ctx->len;
	slot->segs = ctx->gso_segs;
	len = cross(slot, rec, &inst->policy);
	slot->len = len;
	publish(&slot->seq, len ? number : 0);
	if (!len)
		return 0;
	ctx->tstamp = number;
	count(local);
	return 0;
}

#endif

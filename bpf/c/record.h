/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/* Fills a record from the skb that a cgroup_skb program sees. */
#ifndef SOCKMETA_RECORD_H
#define SOCKMETA_RECORD_H

#include "kfuncs.h"
#include "local.h"
#include "maps.h"
#include <bpf/bpf_endian.h>
#include "../include/sockmeta.h"

/*
 * Without an anchor nothing tells the producer's bytes from what lies in front
 * of a mac header that decapsulation moved, except where the packet came from:
 * a device of its own (no link kind) or one that leaves headers alone, and
 * never through IPsec.
 */
static __always_inline int may_be_decapsulated(struct sk_buff *skb)
{
	const struct rtnl_link_ops *ops = BPF_CORE_READ(skb, dev, rtnl_link_ops);
	char kind[8] = {};

	if (bpf_core_field_exists(skb->active_extensions) &&
	    bpf_core_enum_value_exists(enum skb_ext_id, SKB_EXT_SEC_PATH) &&
	    BPF_CORE_READ(skb, active_extensions) &
		    (1 << bpf_core_enum_value(enum skb_ext_id, SKB_EXT_SEC_PATH)))
		return 1;
	if (!ops)
		return 0;
	bpf_probe_read_kernel_str(kind, sizeof(kind), BPF_CORE_READ(ops, kind));
	switch (*(__u64 *)kind) {
#define KIND(a, b, c, d, e, f) \
	((__u64)a | (__u64)b << 8 | (__u64)c << 16 | (__u64)d << 24 | (__u64)e << 32 | (__u64)f << 40)
	case KIND('v', 'e', 't', 'h', 0, 0):
	case KIND('n', 'e', 't', 'k', 'i', 't'):
	case KIND('v', 'l', 'a', 'n', 0, 0):
	case KIND('b', 'o', 'n', 'd', 0, 0):
#undef KIND
		return 0;
	}
	return 1;
}

/* The area of a packet on its way to a socket: the last 4 bytes are its anchor. */
struct area {
	unsigned char *end;
	__u32 len;		/* 0: there is none */
	__u32 segs;		/* of a GRO aggregate */
};

static __always_inline void find_area(struct sk_buff *skb, struct area *a)
{
	struct skb_shared_info *shinfo;

	if (ksym_exists(bpf_rdonly_cast)) {
		shinfo = bpf_rdonly_cast(skb->head + skb->end,
					 bpf_core_type_id_kernel(struct skb_shared_info));
		a->segs = shinfo->gso_segs;
		a->len = shinfo->meta_len;
		a->end = skb->head + skb->mac_header;
	} else {
		a->end = BPF_CORE_READ(skb, head);
		shinfo = (void *)(a->end + BPF_CORE_READ(skb, end));
		a->segs = BPF_CORE_READ(shinfo, gso_segs);
		a->len = BPF_CORE_READ(shinfo, meta_len);
		a->end += BPF_CORE_READ(skb, mac_header);
	}
}

static __always_inline int is_anchor(__u32 word)
{
	return (bpf_ntohl(word) & 0xffffff00) == SOCKMETA_ANCHOR(0);
}

static __always_inline __u8 anchor_format(__u32 anchor)
{
	return bpf_ntohl(anchor) & 0xff;
}

static __always_inline void fill_area(struct __sk_buff *ctx, struct sockmeta_record *rec)
{
	struct sk_buff *skb = kernel_skb(ctx);
	struct area area;
	__u32 len, anchor;

	find_area(skb, &area);
	if (area.segs > 1)
		rec->flags |= SOCKMETA_F_AGGREGATE;
	/* a multiple of 4, which the mask tells the verifier, like the bound */
	len = area.len & SOCKMETA_AREA_MAX;
	if (!len)
		return;
	if (bpf_probe_read_kernel(rec->area, len, area.end - len)) {
		rec->flags |= SOCKMETA_F_UNREADABLE;
		return;
	}
	anchor = *(__u32 *)&rec->area[len - sizeof(anchor)];
	if (is_anchor(anchor)) {
		rec->format = anchor_format(anchor);
	} else if (may_be_decapsulated(skb)) {
		rec->flags |= SOCKMETA_F_DECAPSULATED;
		return;
	} else {
		rec->flags |= SOCKMETA_F_UNANCHORED;
	}
	rec->area_len = len;
}

/*
 * Whether all that there is to know of a datagram can still be read off it when
 * recvmsg takes it from the queue: not where it came from, which an area without an
 * anchor takes, and not what a sender on this host gave.
 */
static __always_inline int tells_itself(struct __sk_buff *ctx)
{
	struct area area;
	__u32 anchor;

	if ((ctx->tstamp & SOCKMETA_LOCAL_MARK) == SOCKMETA_LOCAL_MARK)
		return 0;
	find_area(kernel_skb(ctx), &area);
	return !area.len ||
	       (!bpf_probe_read_kernel(&anchor, sizeof(anchor), area.end - sizeof(anchor)) &&
		is_anchor(anchor));
}

static __always_inline void fill_record(struct __sk_buff *ctx, struct sockmeta_record *rec)
{
	__u16 valid = SOCKMETA_VALID_MARK | SOCKMETA_VALID_PRIORITY |
		      SOCKMETA_VALID_IFINDEX | SOCKMETA_VALID_CPU;
	__u64 sender = 0;

	rec->version = SOCKMETA_RECORD_VERSION;
	rec->hdr_len = __builtin_offsetof(struct sockmeta_record, area);
	rec->area_len = 0;
	rec->format = SOCKMETA_FORMAT_TLV;
	rec->flags = 0;

	rec->tstamp = ctx->tstamp;
	if ((rec->tstamp & SOCKMETA_LOCAL_MARK) == SOCKMETA_LOCAL_MARK) {
		/* the time of reception was not taken */
		sender = rec->tstamp;
		rec->tstamp = 0;
		ctx->tstamp = 0;
	}
	if (rec->tstamp)
		valid |= SOCKMETA_VALID_TSTAMP;
	rec->hwtstamp = ctx->hwtstamp;
	if (rec->hwtstamp)
		valid |= SOCKMETA_VALID_HWTSTAMP;
	rec->mark = ctx->mark;
	rec->priority = ctx->priority;
	rec->hash = ctx->hash;
	if (rec->hash)
		valid |= SOCKMETA_VALID_HASH;
	rec->ifindex = ctx->ifindex;
	rec->napi_id = ctx->napi_id;
	if (rec->napi_id)
		valid |= SOCKMETA_VALID_NAPI_ID;
	rec->cpu = bpf_get_smp_processor_id();
	if (ctx->vlan_present) {
		rec->vlan_tci = ctx->vlan_tci;
		rec->vlan_proto = ctx->vlan_proto;
		valid |= SOCKMETA_VALID_VLAN;
	} else {
		rec->vlan_tci = 0;
		rec->vlan_proto = 0;
	}
	rec->reserved = 0;
	rec->launch = 0;
	rec->valid = valid;

	fill_area(ctx, rec);
	if (sender && !put_sender(ctx, rec, sender))
		rec->flags |= SOCKMETA_F_SENDER_LOST;
}

#endif

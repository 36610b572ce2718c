/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/* Fills a record from the skb that a cgroup_skb program sees. */
#ifndef SOCKMETA_RECORD_H
#define SOCKMETA_RECORD_H

#include "area.h"
#include "sender.h"

/* What a packet says of itself, on its way and in a socket's queue. 0 where it says
 * nothing, but mark and priority, which it always has.
 */
struct packet_facts {
	__u64 tstamp;
	__u64 hwtstamp;
	__u32 mark;
	__u32 priority;
	__u32 hash;
	__u32 ifindex;
	__u32 napi_id;
	__u16 vlan_tci;
	__u16 vlan_proto;
};

/* The fixed part of a record that has no area yet; the CPU is the caller's to say. */
static __always_inline void put_facts(struct sockmeta_record *rec, const struct packet_facts *f)
{
	rec->version = SOCKMETA_RECORD_VERSION;
	rec->hdr_len = RECORD_HDR;
	rec->area_len = 0;
	rec->format = SOCKMETA_FORMAT_TLV;
	rec->flags = 0;
	rec->tstamp = f->tstamp;
	rec->hwtstamp = f->hwtstamp;
	rec->mark = f->mark;
	rec->priority = f->priority;
	rec->hash = f->hash;
	rec->ifindex = f->ifindex;
	rec->napi_id = f->napi_id;
	rec->vlan_tci = f->vlan_tci;
	rec->vlan_proto = f->vlan_proto;
	rec->cpu = 0;
	rec->reserved = 0;
	rec->launch = 0;
	rec->valid = SOCKMETA_VALID_MARK | SOCKMETA_VALID_PRIORITY | SOCKMETA_VALID_IFINDEX |
		     (f->tstamp ? SOCKMETA_VALID_TSTAMP : 0) |
		     (f->hwtstamp ? SOCKMETA_VALID_HWTSTAMP : 0) |
		     (f->hash ? SOCKMETA_VALID_HASH : 0) |
		     (f->napi_id ? SOCKMETA_VALID_NAPI_ID : 0) |
		     (f->vlan_proto ? SOCKMETA_VALID_VLAN : 0);
}

static __always_inline void fill_record(struct __sk_buff *ctx, struct sockmeta_record *rec)
{
	struct packet_facts f = {
		.tstamp = ctx->tstamp,
		.hwtstamp = ctx->hwtstamp,
		.mark = ctx->mark,
		.priority = ctx->priority,
		.hash = ctx->hash,
		.ifindex = ctx->ifindex,
		.napi_id = ctx->napi_id,
	};
	__u64 sender = 0;

	if (is_local_number(f.tstamp)) {
		/* the time of reception was not taken */
		sender = f.tstamp;
		f.tstamp = 0;
		ctx->tstamp = 0;
	}
	if (ctx->vlan_present) {
		f.vlan_tci = ctx->vlan_tci;
		f.vlan_proto = ctx->vlan_proto;
	}
	put_facts(rec, &f);
	rec->cpu = bpf_get_smp_processor_id();
	rec->valid |= SOCKMETA_VALID_CPU;
	fill_area(ctx, rec);
	if (sender && !put_sender(ctx, rec, sender))
		rec->flags |= SOCKMETA_F_SENDER_LOST;
}

#endif

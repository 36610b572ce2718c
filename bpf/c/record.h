/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/* Fills a record from the skb that a cgroup_skb program sees. */
#ifndef SOCKMETA_RECORD_H
#define SOCKMETA_RECORD_H

#include "area.h"
#include "sender.h"

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

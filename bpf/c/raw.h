/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * Records from raw control messages, for tracing.bpf.c and native.bpf.c: they wait
 * for the packet under the task's number, as cgroup egress runs in the same task
 * before sendmsg returns.
 */
#ifndef SOCKMETA_RAW_H
#define SOCKMETA_RAW_H

#include "tx.h"

/* What every version of the fixed part has: all up to launch. */
#define FIXED_MIN __builtin_offsetof(struct sockmeta_record, launch)
#define FIXED_MAX 128

/* The payload is read as the talk reads it, by dynptr, here over a copy: no
 * released kernel makes one of a control message. Its fixed part may be of
 * another version than ours.
 */
static __always_inline int parse_record(struct sockmeta_raw *raw, __u32 len)
{
	struct sockmeta_record *rec = &raw->rec;
	struct bpf_dynptr payload;
	__u32 fixed, area;
	__u8 head[8];

	if (bpf_dynptr_from_mem(raw->payload, sizeof(raw->payload), 0, &payload) ||
	    bpf_dynptr_read(head, sizeof(head), &payload, 0, 0))
		return 0;
	/* version, hdr_len and area_len are where they are in every version */
	fixed = head[1];
	area = head[2];
	if (!head[0] || fixed < FIXED_MIN || fixed > FIXED_MAX || fixed & 3 ||
	    area > SOCKMETA_AREA_MAX || fixed + area > len)
		return 0;
	if (bpf_dynptr_read(rec, FIXED_MIN, &payload, 0, 0) ||
	    bpf_dynptr_read(rec->area, area, &payload, fixed, 0))
		return 0;
	rec->version = SOCKMETA_RECORD_VERSION;
	rec->hdr_len = RECORD_HDR;
	rec->launch = 0;
	return is_sound(rec);
}

static const struct sockmeta_raw no_raw;

/* A place for the task's record, in place of any older one, and the task's alone. */
static __always_inline struct sockmeta_raw *take_raw(__u64 task)
{
	struct sockmeta_raw *raw;

	bpf_map_update_elem(&sockmeta_raws, &task, &no_raw, BPF_ANY);
	raw = bpf_map_lookup_elem(&sockmeta_raws, &task);
	if (!raw)
		count(busy);
	return raw;
}

#endif

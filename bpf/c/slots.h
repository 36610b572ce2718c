/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * Taking a receive slot for a record: ingress and what TCP has to move there.
 *
 * A handle is the slot's index, and the time at which it was given, in units of about
 * 4 µs. A slot is not used twice in one unit, so an attachment does not give a handle
 * twice, until the time comes around after 6.5 days. The time is enciphered by a key
 * of the attachment's. So a sender cannot foresee the handle of a packet that is still
 * to come, and the handles of two attachments have nothing to do with each other.
 */
#ifndef SOCKMETA_SLOTS_H
#define SOCKMETA_SLOTS_H

#include "seqlock.h"

const volatile __u32 slots_shift;	/* 1 << slots_shift slots a CPU */

static __always_inline __u64 unit_now(void)
{
	return bpf_ktime_get_ns() / UNIT;
}

/* Random, set by the loader. */
const volatile __u64 handle_keys[4];

#define HALF_BITS 18
#define HALF_MASK ((1ULL << HALF_BITS) - 1)

static __always_inline __u64 scramble(__u64 half, __u32 index, __u64 key)
{
	__u64 x = (half | (__u64)index << HALF_BITS) ^ key;

	x *= 0x9E3779B97F4A7C15ULL;
	x ^= x >> 29;
	x *= 0xD6E8FEB86659FD93ULL;
	return x >> (64 - HALF_BITS);
}

/* A Feistel network: equal results mean equal units. The highest bit stays as it is. */
static __always_inline __u64 encipher(__u64 unit, __u32 index)
{
	__u64 left = unit >> HALF_BITS & HALF_MASK, right = unit & HALF_MASK;

	left ^= scramble(right, index, handle_keys[0]);
	right ^= scramble(left, index, handle_keys[1]);
	left ^= scramble(right, index, handle_keys[2]);
	right ^= scramble(left, index, handle_keys[3]);
	return (unit >> (2 * HALF_BITS) & 1) << (2 * HALF_BITS) | left << HALF_BITS | right;
}

static __always_inline __u64 handle_of(__u64 enciphered, __u32 index)
{
	return SOCKMETA_HANDLE_BIT | enciphered << SOCKMETA_INDEX_BITS | index;
}

/* A slot that is the caller's until publish(&slot->seq, *handle). NULL if there is none
 * now: then no slot ever has the handle, so that the record is lost.
 */
static __always_inline struct sockmeta_slot *take_slot(__u64 *handle)
{
	__u32 zero = 0, index = bpf_get_smp_processor_id() << slots_shift;
	__u64 *cursor, time, old;
	struct sockmeta_slot *slot;

	*handle = handle_of(0, index);
	cursor = bpf_map_lookup_elem(&sockmeta_cursor, &zero);
	if (!cursor)
		return 0;
	index += __sync_fetch_and_add(cursor, 1) & ((1ULL << slots_shift) - 1);
	slot = bpf_map_lookup_elem(&sockmeta_rx, &index);
	if (!slot)
		return 0;
	time = encipher(unit_now(), index);
	old = claim(&slot->seq);
	/* the ring went once around while another writer has the slot */
	if (old == SOCKMETA_BUSY)
		return 0;
	if (!time || old == handle_of(time, index)) {
		publish(&slot->seq, old);
		return 0;
	}
	*handle = handle_of(time, index);
	return slot;
}

#endif

/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/* Taking a receive slot for a record: ingress and what TCP has to move there. */
#ifndef SOCKMETA_SLOTS_H
#define SOCKMETA_SLOTS_H

#include "seqlock.h"

const volatile __u32 slots_shift;	/* 1 << slots_shift slots a CPU */
/*
 * Where the count of rounds through the slots begins: at the time at which the
 * programs were loaded, in units of ROUND_NS by CLOCK_MONOTONIC. Datagrams may wait
 * in a socket until other programs have taken the place of these, and no two
 * attachments are to give the same handle. So no round may end before the clock
 * says so, or the next attachment could begin among the rounds of this one.
 */
const volatile __u64 first_round;

#define ROUND_SHIFT 12
#define ROUND_NS (1 << ROUND_SHIFT)

/* A CPU cannot receive so many packets in ROUND_NS, 16 ns for each. */
#define LONG_ROUND_SHIFT 8

/* The number of the slot to use, or NO_SLOT if the clock has to come up first. */
#define NO_SLOT (~0ULL)

static __always_inline __u64 next_slot(__u64 *cursor)
{
	__u64 n;

	if (slots_shift >= LONG_ROUND_SHIFT)
		return __sync_fetch_and_add(cursor, 1);
	n = *(volatile __u64 *)cursor;
	if (first_round + (n >> slots_shift) > bpf_ktime_get_ns() >> ROUND_SHIFT ||
	    __sync_val_compare_and_swap(cursor, n, n + 1) != n)
		return NO_SLOT;
	return n;
}

static __always_inline __u64 handle_of(__u64 round, __u32 index)
{
	return SOCKMETA_HANDLE_BIT | index |
	       (round << SOCKMETA_INDEX_BITS & (SOCKMETA_HANDLE_BIT / 2 - 1));
}

/* A slot that is the caller's until publish(&slot->seq, *handle). NULL if there is
 * none now: then the handle is of a round that there never was, so that the record is
 * lost.
 */
static __always_inline struct sockmeta_slot *take_slot(__u64 *handle)
{
	__u32 zero = 0, index = bpf_get_smp_processor_id() << slots_shift;
	struct sockmeta_slot *slot;
	__u64 *cursor, n;

	*handle = handle_of(first_round - 1, index);
	cursor = bpf_map_lookup_elem(&sockmeta_cursor, &zero);
	if (!cursor)
		return 0;
	n = next_slot(cursor);
	if (n == NO_SLOT)
		return 0;
	index += n & ((1ULL << slots_shift) - 1);
	slot = bpf_map_lookup_elem(&sockmeta_rx, &index);
	/* the ring went once around while another writer has the slot */
	if (!slot || claim(&slot->seq) == SOCKMETA_BUSY)
		return 0;
	*handle = handle_of(first_round + (n >> slots_shift), index);
	return slot;
}

#endif

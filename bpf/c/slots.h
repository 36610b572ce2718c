/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/* Taking a receive slot for a record: ingress and what TCP has to move there. */
#ifndef SOCKMETA_SLOTS_H
#define SOCKMETA_SLOTS_H

#include "seqlock.h"

const volatile __u32 slots_shift;	/* 1 << slots_shift slots a CPU */
/* Where the count of rounds through the slots begins. Datagrams may wait in a
 * socket until other programs have taken the place of these: no two attachments
 * are to give the same handle.
 */
const volatile __u64 first_round;

/* A slot that is the caller's until publish(&slot->seq, *handle). NULL when the
 * ring went once around while another writer had the slot.
 */
static __always_inline struct sockmeta_slot *take_slot(__u64 *handle)
{
	struct sockmeta_slot *slot;
	__u32 zero = 0, index;
	__u64 *cursor, n;

	cursor = bpf_map_lookup_elem(&sockmeta_cursor, &zero);
	if (!cursor)
		return 0;
	n = __sync_fetch_and_add(cursor, 1);
	index = (bpf_get_smp_processor_id() << slots_shift) + (n & ((1ULL << slots_shift) - 1));
	slot = bpf_map_lookup_elem(&sockmeta_rx, &index);
	if (!slot || claim(&slot->seq) == SOCKMETA_BUSY)
		return 0;
	*handle = SOCKMETA_HANDLE_BIT | index |
		  (((n >> slots_shift) + first_round) << SOCKMETA_INDEX_BITS &
		   (SOCKMETA_HANDLE_BIT / 2 - 1));
	return slot;
}

#endif

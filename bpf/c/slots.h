/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * Taking a receive slot for a record: ingress and what TCP has to move there.
 *
 * A handle is the time at which it was given, in units of about 4 µs, and the slot's
 * index. A slot is not used twice in one unit, so an attachment never gives a handle
 * twice. Nor do two attachments for one socket: it belongs to one after the other, and
 * the second gives none before the socket has opted in. The time comes around after
 * 6.5 days.
 */
#ifndef SOCKMETA_SLOTS_H
#define SOCKMETA_SLOTS_H

#include "seqlock.h"

const volatile __u32 slots_shift;	/* 1 << slots_shift slots a CPU */

static __always_inline __u64 unit_now(void)
{
	return bpf_ktime_get_ns() / UNIT;
}

static __always_inline __u64 handle_of(__u64 unit, __u32 index)
{
	return SOCKMETA_HANDLE_BIT | index |
	       (unit << SOCKMETA_INDEX_BITS & (SOCKMETA_HANDLE_BIT / 2 - 1));
}

/* Whether datagrams wait in a UDP socket's queue (udp_rmem_release in net/ipv4/udp.c). */
static __always_inline int has_queue(const struct bpf_sock *given)
{
	struct sock *sk = kernel_address(given);

	return BPF_CORE_READ(sk, sk_backlog.rmem_alloc.counter) > 0;
}

/* A slot that is the caller's until publish(&slot->seq, *handle). NULL if there is
 * none now, or if it is not later than the unit since: then the handle is of a time at
 * which nothing ran, so that the record is lost.
 */
static __always_inline struct sockmeta_slot *take_slot(__u64 *handle, __u64 since)
{
	__u32 zero = 0, index = bpf_get_smp_processor_id() << slots_shift;
	__u64 *cursor, unit = unit_now(), next, old;
	struct sockmeta_slot *slot;

	*handle = handle_of(0, index);
	cursor = bpf_map_lookup_elem(&sockmeta_cursor, &zero);
	if (!cursor || unit <= since)
		return 0;
	index += __sync_fetch_and_add(cursor, 1) & ((1ULL << slots_shift) - 1);
	slot = bpf_map_lookup_elem(&sockmeta_rx, &index);
	if (!slot)
		return 0;
	old = claim(&slot->seq);
	/* the ring went once around while another writer has the slot */
	if (old == SOCKMETA_BUSY)
		return 0;
	next = handle_of(unit, index);
	if (old == next) {
		publish(&slot->seq, old);
		return 0;
	}
	*handle = next;
	return slot;
}

#endif

/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/* Moves the record of a segment that waits unread out of the ring, see tcp_log.h. */
#ifndef SOCKMETA_TCP_SPILL_H
#define SOCKMETA_TCP_SPILL_H

#include "slots.h"
#include "tcp_log.h"

/* Raises the end below which readers have to look at the spills. */
static __always_inline int raise_high(struct sockmeta_spills *sp, __u32 end)
{
	__u64 old;
	__u32 i;

	for (i = 0; i < RETRIES; i++) {
		old = *(volatile __u64 *)&sp->high;
		if (old & SPILLS_USED && !after(end, old))
			return 1;
		if (__sync_val_compare_and_swap(&sp->high, old, SPILLS_USED | end) == old)
			return 1;
	}
	return 0;
}

/* The record of the cell, which the caller has claimed, in a slot. 0: no slot. */
static __always_inline __u64 copy_to_slot(const struct sockmeta_cell *cell, __u64 owner)
{
	struct sockmeta_slot *slot;
	__u64 handle;

	slot = take_slot(&handle);
	if (!slot)
		return 0;
	slot->owner = owner;
	slot->tsflags = 0;
	__builtin_memcpy(&slot->rec, &cell->rec, sizeof(slot->rec));
	publish(&slot->seq, handle);
	return handle;
}

/* Returns 0 when the record could not be moved. Global, to be verified once. */
__noinline int move_to_spills(struct sockmeta_spills *sp, struct sockmeta_tcp *tcp,
			      struct sockmeta_cell *cell, struct sockmeta_sk *st, __u32 read)
{
	struct sockmeta_spilled *s;
	__u64 handle, old;

	if (!sp || !tcp || !cell || !st)
		return 0;
	handle = copy_to_slot(cell, st->id);
	if (!handle)
		return 0;
	s = spilled_at(sp, __sync_fetch_and_add(&sp->head, 1));
	old = claim(&s->seq);
	if (old == SOCKMETA_BUSY)
		return 0;
	if (old && is_needed(s->end, read))
		mark_lost(tcp, s->start, s->end, read);
	s->start = cell->start;
	s->end = cell->end;
	publish(&s->seq, handle | (cell->doubtful ? SPILLED_DOUBTFUL : 0));
	return raise_high(sp, cell->end);
}

/* Takes what a claimed cell had out of the ring. */
static __always_inline void evict(struct bpf_sock *sk, struct sockmeta_sk *st,
				  struct sockmeta_tcp *tcp, struct sockmeta_cell *cell, __u32 read)
{
	struct sockmeta_spills *sp;

	if (!is_needed(cell->end, read))
		return;
	sp = bpf_sk_storage_get(&sockmeta_spill, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	/* another CPU has made it meanwhile */
	if (!sp)
		sp = bpf_sk_storage_get(&sockmeta_spill, sk, 0, 0);
	if (!sp || !move_to_spills(sp, tcp, cell, st, read))
		mark_lost(tcp, cell->start, cell->end, read);
}

#endif

/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/* Moves the record of a segment that waits unread out of the ring, see tcp_log.h. */
#ifndef SOCKMETA_TCP_SPILL_H
#define SOCKMETA_TCP_SPILL_H

#include "slots.h"
#include "tcp_pages.h"

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

/* A page for the next entries, in place of the oldest of the connection's, whose
 * bytes are lost. Writers that still enter something there find that its number has
 * gone, or their range was in it before.
 */
static __always_inline void add_page(struct sockmeta_page_ref *ref, struct sockmeta_tcp *tcp,
				     __u32 read)
{
	struct sockmeta_instance *inst = this_instance();
	struct sockmeta_page *page;
	sockmeta_range old;
	__u64 number;

	/* first, as readers look there last */
	old = load(ref->range);
	if (load(ref->number) && is_needed(old >> 32, read))
		mark_lost(tcp, old, old >> 32, read);
	number = __sync_lock_test_and_set(&ref->number, 0);
	old = __sync_lock_test_and_set(&ref->range, 0);
	if (number && is_needed(old >> 32, read))
		mark_lost(tcp, old, old >> 32, read);
	if (!inst)
		return;
	number = __sync_fetch_and_add(&inst->last_page, 1) + 1;
	page = page_of(number);
	if (!page)
		return;
	publish(&page->number, number);
	publish(&ref->number, number);
}

/* Whether another connection has taken the page, with all that was in it. */
static __always_inline int is_taken(struct sockmeta_page_ref *ref)
{
	__u64 number = read_seq(&ref->number);
	struct sockmeta_page *page = page_of(number);

	return !page || read_seq(&page->number) != number;
}

/* The number of the next entry: of the next page if this one was taken. */
static __always_inline __u64 next_entry(struct sockmeta_spills *sp)
{
	__u64 n = __sync_fetch_and_add(&sp->head, 1);

	if (!(n & (SOCKMETA_PAGE - 1)) || !is_taken(page_ref(sp, n / SOCKMETA_PAGE)))
		return n;
	__sync_val_compare_and_swap(&sp->head, n + 1, (n | (SOCKMETA_PAGE - 1)) + 1);
	return __sync_fetch_and_add(&sp->head, 1);
}

/*
 * Enters a record in the connection's page. Another connection may take the page at any
 * time: then the entry is lost. If it is written after that, the other connection finds
 * that the entry is not its own.
 */
static __always_inline int enter(struct sockmeta_spills *sp, struct sockmeta_tcp *tcp,
				 const struct sockmeta_cell *cell, __u64 owner, __u64 handle,
				 __u32 read)
{
	__u64 n = next_entry(sp), number, old;
	struct sockmeta_page_ref *ref = page_ref(sp, n / SOCKMETA_PAGE);
	struct sockmeta_spilled *s;
	struct sockmeta_page *page;

	if (!(n & (SOCKMETA_PAGE - 1)))
		add_page(ref, tcp, read);
	number = read_seq(&ref->number);
	page = page_of(number);
	if (!number || !page || read_seq(&page->number) != number ||
	    !add_range(&ref->range, cell->start, cell->end, cell->end - (1U << 30)))
		return 0;
	s = &page->at[n & (SOCKMETA_PAGE - 1)];
	old = claim(&s->seq);
	if (old == SOCKMETA_BUSY)
		return 0;
	/* a writer that was held up for all of the connection's pages */
	if (old && s->owner == owner && is_needed(s->end, read))
		mark_lost(tcp, s->start, s->end, read);
	s->owner = owner;
	s->start = cell->start;
	s->end = cell->end;
	publish(&s->seq, handle | (cell->doubtful ? SPILLED_DOUBTFUL : 0));
	return read_seq(&page->number) == number && read_seq(&ref->number) == number;
}

/* Returns 0 when the record could not be moved. Global, to be verified once. */
__noinline int move_to_spills(struct sockmeta_spills *sp, struct sockmeta_tcp *tcp,
			      struct sockmeta_cell *cell, struct sockmeta_sk *st, __u32 read)
{
	__u64 handle;

	if (!sp || !tcp || !cell || !st)
		return 0;
	handle = copy_to_slot(cell, st->id);
	return handle && enter(sp, tcp, cell, st->id, handle, read);
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

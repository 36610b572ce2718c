/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * A record has one writer at a time and any number of readers that do not
 * wait. A writer claims it, which makes its old content unreadable, and
 * publishes it under a new sequence number. A reader takes the number before
 * and after it copies: equal and the expected one, or the copy is thrown away.
 *
 * BPF's fetching atomics are full barriers on every architecture
 * (Documentation/bpf/standardization/instruction-set.rst, atomic operations).
 */
#ifndef SOCKMETA_SEQLOCK_H
#define SOCKMETA_SEQLOCK_H

#include "maps.h"

/* Returns the number that it had, or SOCKMETA_BUSY when another writer has it:
 * one that was interrupted while the ring went once around.
 */
static __always_inline __u64 claim(__u64 *seq)
{
	__u64 old = *(volatile __u64 *)seq;

	if (old == SOCKMETA_BUSY || __sync_val_compare_and_swap(seq, old, SOCKMETA_BUSY) != old)
		return SOCKMETA_BUSY;
	return old;
}

static __always_inline void publish(__u64 *seq, __u64 value)
{
	__sync_lock_test_and_set(seq, value);
}

static __always_inline __u64 read_seq(__u64 *seq)
{
	return __sync_fetch_and_add(seq, 0);
}

/* A full barrier on a word that is there. Where nobody takes what a fetching atomic
 * returns, the compiler makes another of it, which orders nothing on arm64.
 */
static __always_inline void barrier_fetching(__u64 *word)
{
	__u64 taken = read_seq(word);

	asm volatile("" : : "r"(taken));
}

/* Whether there is a record under that number, and not an empty place or one
 * that is being written.
 */
static __always_inline int is_record(__u64 seq)
{
	return seq > SOCKMETA_BUSY;
}

#endif

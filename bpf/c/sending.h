/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/* What a socket has sent that is still under way. */
#ifndef SOCKMETA_SENDING_H
#define SOCKMETA_SENDING_H

#include "kfuncs.h"
#include "maps.h"

/* Whether packets that the socket sent are still somewhere, beside one of that size: they
 * keep all that is kept at it. Without any it has 1.
 */
static __always_inline int is_sending(const struct bpf_sock *given, __u32 beside)
{
	struct sock *sk = kernel_address(given);

	return BPF_CORE_READ(sk, sk_wmem_alloc.refs.counter) > 1 + beside;
}

/* What the packet takes of its socket's memory. */
static __always_inline __u32 truesize_of(struct __sk_buff *ctx)
{
	struct sk_buff *skb = kernel_address(ctx);

	return BPF_CORE_READ(skb, truesize);
}

/* Trains that left before egress counted them may be under way. Whoever calls this has
 * seen to it that egress counts from now on.
 */
static __always_inline void count_earlier_trains(struct sockmeta_flights *f,
						 const struct bpf_sock *sk, __u32 beside)
{
	/* a barrier: what egress did not see is there now */
	__sync_fetch_and_add(&f->trains, 0);
	if (is_sending(sk, beside))
		__sync_fetch_and_add(&f->trains, 1);
}

/* A packet leaves: a train, or one that shows that all trains have arrived. */
static __always_inline void count_trains(struct sockmeta_flights *f, struct __sk_buff *ctx,
					 const struct bpf_sock *sk)
{
	__u64 trains;

	if (ctx->gso_size) {
		__sync_fetch_and_add(&f->trains, 1);
		return;
	}
	if (!*(volatile __u64 *)&f->trains)
		return;
	/* a barrier: one that is counted by now is under way, or has been */
	trains = __sync_fetch_and_add(&f->trains, 0);
	/* one that comes meanwhile counts */
	if (!is_sending(sk, truesize_of(ctx)))
		__sync_val_compare_and_swap(&f->trains, trains, 0);
}

#endif

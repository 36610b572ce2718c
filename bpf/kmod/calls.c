// SPDX-License-Identifier: GPL-2.0
/*
 * The calls that tasks are in, found by the task.
 *
 * Why nobody reaches a call that is gone: what a hook leaves behind for the end of
 * a function (the shadow stack of fprobe) is the call's number, never its address.
 * The number is looked up here, among the calls of current. That matters as tasks
 * sleep in recvmsg() for as long as they like. While one does, the module may be
 * unloaded, its calls be freed and the module be loaded again, with its fprobes
 * where the old ones were: fprobe_return() then takes the old entry for one of
 * ours. No call has the old number, as numbers go up from the time of loading.
 *
 * Locking: only current begins, ends, finds and uses calls of its own, so a call
 * that it found stays for as long as it does not leave the function. The buckets'
 * locks are for the lists, which calls of several tasks share. They are raw and
 * taken with interrupts off, as BPF programs and hooks run in any context.
 *
 * Calls come from a pool, as hooks cannot allocate (on PREEMPT_RT not even with
 * GFP_ATOMIC). One whose end is missed, as the task died in it, stays in its list
 * until the module goes. It is harmless: a task whose task_struct is in the same
 * place finds its own newer call first.
 */
#include <linux/atomic.h>
#include <linux/hash.h>
#include <linux/ktime.h>
#include <linux/list.h>
#include <linux/objpool.h>
#include <linux/preempt.h>
#include <linux/sched.h>
#include <linux/spinlock.h>

#include "sockmeta.h"

#define BUCKET_BITS 8

struct bucket {
	raw_spinlock_t lock;
	struct hlist_head calls;	/* the newest first */
	u64 last_id;
} ____cacheline_aligned_in_smp;

static struct bucket buckets[1 << BUCKET_BITS];
static struct objpool_head pool;
static atomic_long_t missed;

static struct bucket *my_bucket(void)
{
	return &buckets[hash_ptr(current, BUCKET_BITS)];
}

/* Returns the call's number, 0 if there are too many calls already. */
u64 sockmeta_call_begin(struct sock *sk, struct msghdr *msg, bool receives)
{
	struct sockmeta_call *call = objpool_pop(&pool);
	struct bucket *b = my_bucket();
	unsigned long flags;

	if (!call) {
		atomic_long_inc(&missed);
		return 0;
	}
	call->task = current;
	call->sk = sk;
	call->msg = msg;
	call->skb = NULL;
	call->receives = receives;
	raw_spin_lock_irqsave(&b->lock, flags);
	call->id = ++b->last_id;
	hlist_add_head(&call->node, &b->calls);
	raw_spin_unlock_irqrestore(&b->lock, flags);
	return call->id;
}

void sockmeta_call_end(u64 id)
{
	struct sockmeta_call *call = sockmeta_call_by_id(id);
	struct bucket *b = my_bucket();
	unsigned long flags;

	if (!call)
		return;
	raw_spin_lock_irqsave(&b->lock, flags);
	hlist_del(&call->node);
	raw_spin_unlock_irqrestore(&b->lock, flags);
	objpool_push(call, &pool);
}

/* The newest of current's calls that has these; 0 and NULL stand for any. */
static struct sockmeta_call *find(u64 id, const struct sock *sk, const struct msghdr *msg)
{
	struct sockmeta_call *call, *found = NULL;
	struct bucket *b = my_bucket();
	unsigned long flags;

	raw_spin_lock_irqsave(&b->lock, flags);
	hlist_for_each_entry(call, &b->calls, node) {
		if (call->task == current && (!id || call->id == id) &&
		    (!sk || call->sk == sk) && (!msg || call->msg == msg)) {
			found = call;
			break;
		}
	}
	raw_spin_unlock_irqrestore(&b->lock, flags);
	return found;
}

struct sockmeta_call *sockmeta_call_by_id(u64 id)
{
	return find(id, NULL, NULL);
}

/*
 * What interrupts current is no part of its calls. The newest call of a socket is
 * the one that runs: one nests in another where udpv6_sendmsg() hands an
 * IPv4-mapped destination on, and where a page fault in the middle of a call makes
 * the kernel use sockets of its own.
 */
struct sockmeta_call *sockmeta_call_by_sk(const struct sock *sk)
{
	return in_task() ? find(0, sk, NULL) : NULL;
}

struct sockmeta_call *sockmeta_call_by_msg(const struct msghdr *msg)
{
	return in_task() ? find(0, NULL, msg) : NULL;
}

unsigned long sockmeta_calls_missed(void)
{
	return atomic_long_read(&missed);
}

int sockmeta_calls_init(unsigned int most)
{
	u64 now = ktime_get_ns();
	int i;

	for (i = 0; i < ARRAY_SIZE(buckets); i++) {
		raw_spin_lock_init(&buckets[i].lock);
		buckets[i].last_id = now;
	}
	return objpool_init(&pool, most, sizeof(struct sockmeta_call), GFP_KERNEL,
			    NULL, NULL, NULL);
}

/*
 * When no hook runs any more and, as the module has no users, no program that could
 * find a call. Tasks that are still in theirs do not come back here.
 */
void sockmeta_calls_exit(void)
{
	objpool_free(&pool);
}

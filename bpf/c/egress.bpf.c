// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/*
 * cgroup_skb/egress: runs once for each packet that leaves a socket, a train of
 * UDP_SEGMENT segments being one, before it is cut into fragments.
 *
 * UDP: skb->tstamp holds the number of the slot with the packet's record, in
 * the memory of the task that is in sendmsg; the program takes the record out
 * and gives tstamp back what it would have held. A number that leads to no
 * record of this socket's is counted, and the packet leaves without.
 * TCP: segments leave from softirq and timers, too, so that the record waits at
 * the socket.
 */
#include "bounds.h"
#include "cross.h"
#include "sending.h"
#include "tx.h"

/* Whether tracing.bpf.c or native.bpf.c is there to read raw control messages. */
const volatile bool raws;

/* Gives the packet what its record asks for. */
static __always_inline void apply(struct __sk_buff *ctx, const struct sockmeta_sent *rec)
{
	if (rec->valid & SOCKMETA_VALID_MARK) {
		struct sockmeta_instance *inst = this_instance();

		if (inst)
			ctx->mark = (ctx->mark & ~inst->policy.mark_mask) | rec->mark;
	}
	if (rec->valid & SOCKMETA_VALID_PRIORITY)
		ctx->priority = rec->priority;
	count(sent);
}

/* The skb was another packet's once: of that one nothing is to be left. */
static __always_inline void forget(struct sockmeta_flights *f, struct __sk_buff *ctx,
				   struct bpf_sock *sk)
{
	__u64 skb = (__u64)kernel_skb(ctx);
	__u32 i;

	for (i = 0; i < SOCKMETA_FLIGHTS; i++)
		if (f->skb[i] == skb)
			f->skb[i] = 0;
	count_trains(f, ctx, sk);
}

/* What is read of a slot at once: a cache line. */
#define SHORT_SLOT 64
#define SHORT_AREA (SHORT_SLOT - __builtin_offsetof(struct sockmeta_tx_slot, rec.area))

/* Reads the record that the number stands for from the memory of the task that
 * sends.
 */
static __always_inline int read_tx_slot(struct bpf_sock *sk, struct sockmeta_flights *f,
					struct sockmeta_flight *fl, const struct sockmeta_sk *st,
					__u64 number)
{
	__u32 id = number >> SOCKMETA_TX_PROC_SHIFT;
	__u32 index = number & ((1 << SOCKMETA_TX_INDEX_BITS) - 1);
	struct sockmeta_proc *proc = &f->procs[id & (SOCKMETA_TX_PROCS - 1)];
	const struct sockmeta_tx_slot *slot;
	__u64 again;
	__u32 rest;

	if (!id || proc->id != id || proc->tgid != this_task() >> 32 ||
	    index >= proc->count) {
		count(foreign);
		return 0;
	}
	slot = (const struct sockmeta_tx_slot *)proc->addr + index;
	if (bpf_probe_read_user(&fl->handle, SHORT_SLOT, slot) || fl->handle != number) {
		count(stale);
		return 0;
	}
	if (fl->socket != socket_number(st)) {
		count(foreign);
		return 0;
	}
	if (!is_sound(&fl->rec)) {
		count(malformed);
		return 0;
	}
	if (fl->rec.area_len > SHORT_AREA) {
		/* a multiple of 4, which the mask tells the verifier */
		rest = (fl->rec.area_len - SHORT_AREA) & SOCKMETA_AREA_MAX;
		if (rest > SOCKMETA_AREA_MAX - SHORT_AREA ||
		    bpf_probe_read_user(fl->rec.area + SHORT_AREA, rest,
					slot->rec.area + SHORT_AREA)) {
			count(stale);
			return 0;
		}
	}
	/* A corked datagram leaves when nobody holds its slot any more: it may have
	 * been filled anew meanwhile.
	 */
	if (!may_be_corked(sk))
		return 1;
	__sync_fetch_and_add(&f->tasks, 0);
	if (bpf_probe_read_user(&again, sizeof(again), slot) || again != number) {
		count(stale);
		return 0;
	}
	return 1;
}

/* A place for the packet's record, while it is written. */
struct place {
	struct sockmeta_flight *fl;
	__u64 seq;
	__u32 i;
};

static __always_inline int take_place(struct sockmeta_flights *f, struct place *p)
{
	__u64 task = this_task();
	__u32 i, found = SOCKMETA_FLIGHTS;

	for (i = 0; i < SOCKMETA_FLIGHTS; i++)
		if (f->task[i] == task)
			found = i;
	if (found == SOCKMETA_FLIGHTS)
		found = __sync_fetch_and_add(&f->tasks, 1);
	i = found & (SOCKMETA_FLIGHTS - 1);
	p->i = i;
	p->fl = &f->at[i];
	p->seq = claim(&p->fl->seq);
	if (p->seq == SOCKMETA_BUSY) {
		count(busy);
		return 0;
	}
	p->seq = p->seq ? p->seq + 1 : FIRST_SEQ;
	f->task[i] = task;
	return 1;
}

/* From here on others may read the place, and take it. Who finds the skb, and then
 * a sequence number, looks for the skb once more: so it has to be there first.
 */
static __always_inline void leave_place(struct sockmeta_flights *f, struct place *p, __u64 skb)
{
	f->skb[p->i & (SOCKMETA_FLIGHTS - 1)] = skb;
	publish(&p->fl->seq, p->seq);
}

/* The record is whole: the packet gets what it asks for. */
static __always_inline void fly(struct __sk_buff *ctx, struct sockmeta_flights *f,
				struct place *p, int may_cross)
{
	struct sockmeta_sent *rec = &p->fl->rec;

	restrict_record(rec, IPPROTO_UDP);
	if (rec->valid & SOCKMETA_VALID_LAUNCH)
		ctx->tstamp = rec->launch;
	else if (may_cross)
		go_local(ctx, rec);
	apply(ctx, rec);
	f->time[p->i & (SOCKMETA_FLIGHTS - 1)] = bpf_ktime_get_coarse_ns();
	leave_place(f, p, (__u64)kernel_skb(ctx));
}

static __always_inline void udp_egress(struct __sk_buff *ctx, struct bpf_sock *sk,
				       struct sockmeta_sk *st)
{
	__u64 number = ctx->tstamp;
	struct sockmeta_flights *f;
	struct place p;

	f = bpf_sk_storage_get(&sockmeta_flights, sk, 0, 0);
	if (!f)
		return;
	forget(f, ctx, sk);
	/* none, or a launch time of the application's own */
	if (!number || number >= SOCKMETA_TX_END)
		return;
	ctx->tstamp = 0;
	if (!take_place(f, &p))
		return;
	if (read_tx_slot(sk, f, p.fl, st, number)) {
		fly(ctx, f, &p, 1);
	} else {
		p.fl->rec.version = 0;
		leave_place(f, &p, 0);
	}
}

/* A record from a raw control message, which has been checked (raw.h). Sockets
 * whose programs know nothing of sockmeta have not opted in. It does not go on to
 * receivers on this host: without SO_TXTIME a time in tstamp is one of reception
 * (skb->tstamp_type), which the devices on the way clear.
 */
static __noinline int raw_egress(struct __sk_buff *ctx)
{
	__u64 task = this_task();
	struct bpf_sock *sk = ctx->sk;
	struct sockmeta_flights *f;
	struct sockmeta_raw *raw;
	struct place p;

	if (!sk)
		return 0;
	sk = bpf_sk_fullsock(sk);
	if (!sk || sk->protocol != IPPROTO_UDP)
		return 0;
	f = bpf_sk_storage_get(&sockmeta_flights, sk, 0, 0);
	raw = bpf_map_lookup_elem(&sockmeta_raws, &task);
	if (!raw || raw->sk != (__u64)BPF_CORE_READ(kernel_skb(ctx), sk)) {
		if (f)
			forget(f, ctx, sk);
		return 0;
	}
	if (!f) {
		if (take_seat(sk))
			return 0;
		f = bpf_sk_storage_get(&sockmeta_flights, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
		/* another task has made it meanwhile */
		if (!f)
			f = bpf_sk_storage_get(&sockmeta_flights, sk, 0, 0);
		if (!f) {
			count(busy);
			return 0;
		}
		count_earlier_trains(f, sk, truesize_of(ctx));
	}
	forget(f, ctx, sk);
	if (!take_place(f, &p))
		return 0;
	take_fields(&p.fl->rec, &raw->rec);
	__builtin_memcpy(p.fl->rec.area, raw->rec.area, sizeof(p.fl->rec.area));
	/* a launch time comes in a message of the kernel's own */
	p.fl->rec.valid &= ~SOCKMETA_VALID_LAUNCH;
	fly(ctx, f, &p, 0);
	bpf_map_delete_elem(&sockmeta_raws, &task);
	return 1;
}

static __always_inline void tcp_egress(struct __sk_buff *ctx, struct bpf_sock *sk)
{
	struct sockmeta_flight *conn;

	/* The socket's lock keeps the record as it is: segments leave under it,
	 * and so do socket options.
	 */
	conn = bpf_sk_storage_get(&sockmeta_conns, sk, 0, 0);
	if (!conn || !conn->rec.version)
		return;
	go_local(ctx, &conn->rec);
	apply(ctx, &conn->rec);
}

SEC("cgroup_skb/egress")
int sockmeta_egress(struct __sk_buff *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct sockmeta_sk *st;

	if (!sk)
		return 1;
	if (raws && raw_egress(ctx))
		return 1;
	if (is_bare(sk))
		return 1;
	st = bpf_sk_storage_get(&sockmeta_sks, sk, 0, 0);
	if (!st || !st->transmits)
		return 1;
	if (st->protocol == IPPROTO_UDP)
		udp_egress(ctx, sk, st);
	else
		tcp_egress(ctx, sk);
	return 1;
}

/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * Which segment brought a byte. At the filter nobody knows yet whether TCP will
 * take a segment: checksum, ACK and PAWS are checked behind it, and what it takes
 * it may drop again (tcp_prune_ofo_queue). But TCP delivers no byte that did not
 * pass the filter in a segment, and none that it has already (rcv_nxt). So each
 * segment is logged with the bytes that were new when it came, and a byte that the
 * application has read came with the one segment in the log that has it. If there
 * are several, it cannot be known which. If one of them may have left the log, its
 * bytes are in sockmeta_tcp.lost.
 *
 * A segment is logged in a cell of the ring. When its cell is needed and its bytes
 * have not been read, its record moves to a receive slot and its range to a page of
 * sockmeta_spills. Writers are segments on any CPU, and do not hold the socket's
 * lock. Readers look at the ring first: what has left a cell by then is in the
 * spills, or in lost.
 */
#ifndef SOCKMETA_TCP_LOG_H
#define SOCKMETA_TCP_LOG_H

#include "seqlock.h"
#include "tcp.h"

#define RETRIES 8

static __always_inline sockmeta_range make_range(__u32 start, __u32 end)
{
	return (__u64)end << 32 | start;
}

static __always_inline int in_range(sockmeta_range r, __u32 seq)
{
	return seq - (__u32)r < (__u32)(r >> 32) - (__u32)r;
}

/* Whether the application may ask for a byte in front of end: the last one that it
 * read is at read - 1, or at read - 2 when a FIN was read, too.
 */
static __always_inline int is_needed(__u32 end, __u32 read)
{
	return !after(read, end + 1);
}

/* Adds a range to a set, which becomes the smallest range that has both. What nobody
 * asks for any more is forgotten: read is copied_seq. Returns 0 when
 * others changed the set all the time.
 */
static __always_inline int add_range(sockmeta_range *set, __u32 start, __u32 end, __u32 read)
{
	__u32 i, low, high;
	__u64 old, new;

	for (i = 0; i < RETRIES; i++) {
		old = *(volatile __u64 *)set;
		low = old;
		high = old >> 32;
		new = make_range(start, end);
		if (low != high && is_needed(high, read))
			new = make_range(after(low, start) ? start : low,
					 after(end, high) ? end : high);
		if (__sync_val_compare_and_swap(set, old, new) == old)
			return 1;
	}
	return 0;
}

static __always_inline void mark_lost(struct sockmeta_tcp *tcp, __u32 start, __u32 end, __u32 read)
{
	if (start != end && !add_range(&tcp->lost, start, end, read))
		tcp->all_lost = 1;
}

/* A FIN has one of these numbers. Of those that are a window and more behind it none is
 * left.
 */
static __always_inline void mark_fin(struct sockmeta_tcp *tcp, __u32 start, __u32 end)
{
	if (!add_range(&tcp->fins, start, end, end - (1U << 30)))
		tcp->all_lost = 1;
}

/* TCP takes an urgent byte out of the stream, and counts it as read when the application
 * reads on, or another one comes. Where it is depends on net.ipv4.tcp_stdurg.
 */
static __always_inline void mark_urgent(struct sockmeta_tcp *tcp, __u32 urgent, __u32 read)
{
	if (!add_range(&tcp->urgent, urgent - 1, urgent + 1, read))
		tcp->all_lost = 1;
}

/* Notes whether what the application reads may be other than TCP's own: a sockmap brings
 * what other sockets sent, and an upper layer (kTLS) reads ahead of it.
 */
static __always_inline void note_diverted(struct sockmeta_tcp *tcp, struct bpf_sock *given)
{
	struct inet_connection_sock *icsk;
	struct sock *sk;

	if (!ksym_exists(bpf_rdonly_cast)) {
		sk = kernel_address(given);
		icsk = kernel_address(given);
		if (BPF_CORE_READ(sk, sk_user_data) || BPF_CORE_READ(icsk, icsk_ulp_ops))
			tcp->diverted = 1;
		return;
	}
	sk = bpf_rdonly_cast(given, bpf_core_type_id_kernel(struct sock));
	icsk = bpf_rdonly_cast(given, bpf_core_type_id_kernel(struct inet_connection_sock));
	if (sk->sk_user_data || icsk->icsk_ulp_ops)
		tcp->diverted = 1;
}

#define load(x) (*(volatile typeof(x) *)&(x))

/* Forgets what the application has read past, or it would count again once the
 * sequence numbers have gone around. Others may be at work. read is copied_seq, maybe
 * of some time ago.
 */
static __always_inline void forget_read(struct sockmeta_tcp *tcp, __u32 read)
{
	__u64 old;

	if (tcp->late && !is_needed(tcp->settled + 1, read))
		tcp->late = 0;
	old = load(tcp->lost);
	if (old && !is_needed(old >> 32, read))
		__sync_val_compare_and_swap(&tcp->lost, old, 0);
	/* further on than by a FIN alone */
	if (!tcp->has_read && tcp->established && read - 1 - tcp->unread > 1)
		tcp->has_read = 1;
}

/* The number of the next cell of the ring, and the cell. */
static __always_inline struct sockmeta_cell *next_cell(struct sockmeta_tcp *tcp, __u64 *n)
{
	*n = __sync_fetch_and_add(&tcp->head, 1);
	return &tcp->ring[*n & (SOCKMETA_TCP_RING - 1)];
}

/* As much as a segment may have in front of the window's end (GRO_MAX_SIZE). */
#define SEGMENT_MAX (8 * 65536)

/* The connection had segments before there was a log, and what TCP keeps of them may
 * come to be read: all that is in the window now, and what hung over its end.
 */
static __always_inline void be_late(struct sockmeta_tcp *tcp, __u32 rcv_wup, __u32 rcv_wnd)
{
	tcp->settled = rcv_wup + rcv_wnd + SEGMENT_MAX;
	tcp->late = 1;
}

#endif

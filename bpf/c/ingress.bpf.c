// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/*
 * cgroup_skb/ingress: runs once for each packet that is about to enter a
 * socket's queue, in softirq (on loopback: in the sender's task, so nothing
 * here may depend on current).
 *
 * UDP: fills a slot and leaves its handle in skb->tstamp, which recvmsg hands
 * to the application as a SCM_TIMESTAMPING control message.
 * TCP: a stream has no packets, so the records wait at the socket, each with
 * the sequence numbers of its bytes, until getsockopt asks (sockopt.bpf.c).
 */
#include "record.h"
#include "seqlock.h"
#include "tcp.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

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

/* The number of the slot to use, or NO_SLOT where the clock has to come up first. */
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

static __always_inline void udp_ingress(struct __sk_buff *ctx, struct sockmeta_sk *st)
{
	__u32 zero = 0, index = bpf_get_smp_processor_id() << slots_shift;
	struct sockmeta_slot *slot;
	__u64 *cursor, n, handle;

	cursor = bpf_map_lookup_elem(&sockmeta_cursor, &zero);
	if (!cursor)
		return;
	n = next_slot(cursor);
	if (n == NO_SLOT) {
		/* of a round that there never was: the record is lost */
		ctx->tstamp = handle_of(first_round - 1, index);
		return;
	}
	index += n & ((1ULL << slots_shift) - 1);
	slot = bpf_map_lookup_elem(&sockmeta_rx, &index);
	if (!slot || claim(&slot->seq) == SOCKMETA_BUSY)
		return;
	slot->owner = st->id;
	slot->tsflags = st->tsflags;
	fill_record(ctx, &slot->rec);
	handle = handle_of(first_round + (n >> slots_shift), index);
	publish(&slot->seq, handle);
	ctx->tstamp = handle;
}

static const struct sockmeta_handshake no_handshake;

static __always_inline struct sockmeta_handshake *handshake(const struct sockmeta_flow *flow)
{
	struct sockmeta_handshake *hs = bpf_map_lookup_elem(&sockmeta_handshakes, flow);

	if (hs)
		return hs;
	bpf_map_update_elem(&sockmeta_handshakes, flow, &no_handshake, BPF_NOEXIST);
	return bpf_map_lookup_elem(&sockmeta_handshakes, flow);
}

/* seq 0: the one after that of its last use. */
static __noinline void fill_cell(struct __sk_buff *ctx, struct sockmeta_cell *cell,
				 const struct segment *seg, __u64 seq)
{
	__u64 old = claim(&cell->seq);

	if (old == SOCKMETA_BUSY)
		return;
	if (!seq)
		seq = old ? old + 1 : FIRST_SEQ;
	cell->start = seg->start;
	cell->end = seg->end;
	fill_record(ctx, &cell->rec);
	publish(&cell->seq, seq);
}

/* The child does not exist yet: its SYN, and the segment that completes the
 * handshake, are filtered on behalf of the listener (net/ipv4/tcp_ipv4.c,
 * tcp_v4_rcv, TCP_NEW_SYN_RECV).
 */
static __always_inline void listener_ingress(struct __sk_buff *ctx, const struct segment *seg)
{
	struct sockmeta_handshake *hs;

	if (!seg->syn == !seg->ack)
		return;
	hs = handshake(&seg->flow);
	if (!hs)
		return;
	/* The table gives entries that it takes back to other flows: no two records
	 * have had the same number.
	 */
	if (seg->ack)
		fill_cell(ctx, &hs->ack, seg, bpf_ktime_get_ns());
	/* not when it comes again */
	else if (!is_record(hs->syn.seq) || hs->syn.start != seg->start)
		fill_cell(ctx, &hs->syn, seg, bpf_ktime_get_ns());
}

static __always_inline void connection_ingress(struct __sk_buff *ctx, struct bpf_sock *sk,
					       struct sockmeta_tcp *tcp, const struct segment *seg)
{
	struct tcp_sock *tp;
	__u64 n;

	if (seg->syn) {
		/* an answer to our SYN; sockops checks that it was the one */
		if (seg->ack && !tcp->established)
			fill_cell(ctx, &tcp->opening, seg, 0);
		return;
	}
	tp = bpf_skc_to_tcp_sock(sk);
	if (!tp)
		return;
	/* TCP will drop what is outside its window (tcp_sequence). Another CPU
	 * may be moving it, one field after the other: its greatest size does
	 * not change meanwhile.
	 */
	if (after(seg->start, tp->rcv_nxt + tp->window_clamp) || after(tp->rcv_wup, seg->end))
		return;
	if (seg->fin) {
		tcp->fin = seg->end;
		tcp->has_fin = 1;
	}
	if (seg->start == seg->end) {
		fill_cell(ctx, &tcp->control, seg, 0);
		tcp->latest = 0;
		return;
	}
	if (!after(seg->end, tp->rcv_nxt))
		return;
	n = __sync_fetch_and_add(&tcp->head, 1);
	fill_cell(ctx, &tcp->ring[n & (SOCKMETA_TCP_RING - 1)], seg, FIRST_SEQ + n);
	tcp->latest = 1 + n;
}

SEC("cgroup_skb/ingress")
int sockmeta_ingress(struct __sk_buff *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct segment seg = {};
	struct sockmeta_tcp *tcp;
	struct sockmeta_sk *st;

	if (!sk || is_bare(sk))
		return 1;
	st = bpf_sk_storage_get(&sockmeta_sks, sk, 0, 0);
	if (!st)
		return 1;
	/* No handle of ours can be there yet. It is another attachment's, whose
	 * socket this is not any more, or a sender made it up: SCM_TXTIME gets
	 * through to receivers of the sender's own multicast, and to those behind a
	 * veth pair in one namespace.
	 */
	if ((ctx->tstamp & SOCKMETA_LOCAL_MARK) == SOCKMETA_HANDLE_BIT)
		ctx->tstamp = 0;
	if (st->protocol == IPPROTO_UDP) {
		/* or else recvmsg makes the record (native.bpf.c) */
		if (!(st->flags & SOCKMETA_ENABLE_CMSG) || !tells_itself(ctx))
			udp_ingress(ctx, st);
	} else if (parse_segment(ctx, &seg)) {
		tcp = bpf_sk_storage_get(&sockmeta_tcps, sk, 0, 0);
		if (tcp) {
			connection_ingress(ctx, sk, tcp, &seg);
		} else {
			seg.flow.listener = st->id;
			listener_ingress(ctx, &seg);
		}
	}
	/* no record took it: it is no time that anybody should see */
	if ((ctx->tstamp & SOCKMETA_LOCAL_MARK) == SOCKMETA_LOCAL_MARK)
		ctx->tstamp = 0;
	return 1;
}

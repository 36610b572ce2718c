/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/* What cgroup ingress keeps of a TCP segment: see tcp_log.h for why. */
#ifndef SOCKMETA_TCP_INGRESS_H
#define SOCKMETA_TCP_INGRESS_H

#include "record.h"
#include "tcp_spill.h"

#define TCP_SYN_RECV 3
#define TCP_LISTEN 10
#define TCP_NEW_SYN_RECV 12

/* include/linux/skbuff.h */
#define CHECKSUM_UNNECESSARY 1
#define CHECKSUM_PARTIAL 3

static const struct sockmeta_handshake no_handshake;

static __always_inline struct sockmeta_handshake *handshake(const struct sockmeta_flow *flow)
{
	struct sockmeta_handshake *hs = bpf_map_lookup_elem(&sockmeta_handshakes, flow);

	if (hs)
		return hs;
	bpf_map_update_elem(&sockmeta_handshakes, flow, &no_handshake, BPF_NOEXIST);
	return bpf_map_lookup_elem(&sockmeta_handshakes, flow);
}

/* The content of a cell that the caller has claimed. */
static __noinline void fill_cell(struct __sk_buff *ctx, struct sockmeta_cell *cell,
				 const struct segment *seg, __u32 start, __u32 doubtful)
{
	cell->skb = (__u64)kernel_skb(ctx);
	cell->start = start;
	cell->end = seg->end;
	cell->doubtful = doubtful;
	fill_record(ctx, &cell->rec);
}

/* Puts the segment into a cell outside the ring, of which only the newest counts.
 * seq 0: the number after that of its last use. Returns 0 when another CPU is at it.
 */
static __noinline int put_cell(struct __sk_buff *ctx, struct sockmeta_cell *cell,
			       const struct segment *seg, __u64 seq, __u32 doubtful)
{
	__u64 old = claim(&cell->seq);

	if (old == SOCKMETA_BUSY)
		return 0;
	if (!seq)
		seq = old ? old + 1 : FIRST_SEQ;
	fill_cell(ctx, cell, seg, seg->start, doubtful);
	publish(&cell->seq, seq);
	return 1;
}

/* Whether the kernel has answered a SYN of this flow, and waits for the rest. */
static __always_inline int has_request(struct __sk_buff *ctx, const struct sockmeta_flow *f)
{
	struct bpf_sock_tuple t = {};
	struct bpf_sock *sk;
	__u32 size;
	int yes;

	size = fill_tuple(ctx, &t, f->remote, f->remote_port, f->local, f->local_port);
	sk = bpf_skc_lookup_tcp(ctx, &t, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return 0;
	yes = sk->state == TCP_NEW_SYN_RECV;
	bpf_sk_release(sk);
	return yes;
}

/* Nothing has been read yet: all of the range counts. */
static __always_inline void lose_in_handshake(struct sockmeta_handshake *hs, __u32 start, __u32 end)
{
	if (start != end && !add_range(&hs->lost, start, end, end - (1U << 30)))
		hs->all_lost = 1;
}

/*
 * The child does not exist yet: its SYN, and the segment that completes the
 * handshake, are filtered on behalf of the listener (net/ipv4/tcp_ipv4.c,
 * tcp_v4_rcv, TCP_NEW_SYN_RECV). It is the only SYN that can have opened the
 * connection if no other of the flow was seen, and none is being answered, which
 * would be one whose entry the table has given away. With SYN cookies the kernel
 * keeps nothing that it could answer from.
 *
 * A segment that does not complete the handshake is dropped, or is filtered again on
 * behalf of the child that another one has made. But if the child was there when the
 * filter looked, and had no log yet, it waits for it.
 *
 * The table gives entries that it takes back to other flows: no two records have
 * had the same number.
 */
static __always_inline void listener_ingress(struct __sk_buff *ctx, const struct segment *seg,
					     int waits)
{
	struct sockmeta_handshake *hs;

	if (seg->rst) {
		hs = bpf_map_lookup_elem(&sockmeta_handshakes, &seg->flow);
		if (hs)
			hs->reset = 1;
		return;
	}
	if (!seg->syn == !seg->ack)
		return;
	hs = handshake(&seg->flow);
	if (!hs)
		return;
	if (seg->ack) {
		/* what it has beside its bytes nobody keeps for the child */
		if (waits && (seg->fin || seg->urg))
			hs->all_lost = 1;
		if (is_record(hs->ack.seq) && hs->ack.doubtful)
			lose_in_handshake(hs, hs->ack.start, hs->ack.end);
		hs->cookie = !has_request(ctx, &seg->flow);
		if (!put_cell(ctx, &hs->ack, seg, bpf_ktime_get_ns(), waits) && waits)
			lose_in_handshake(hs, seg->start, seg->end);
		return;
	}
	if (__sync_fetch_and_add(&hs->syns, 1)) {
		/* the first is the one that counts, unless it was given up */
		if (hs->syn.start == seg->start && !hs->reset) {
			/* its memory may be this one's by now */
			if (hs->syn.skb == (__u64)kernel_skb(ctx))
				hs->syn.skb = 0;
			return;
		}
	} else if (has_request(ctx, &seg->flow)) {
		hs->repeated = 1;
	}
	hs->reset = 0;
	put_cell(ctx, &hs->syn, seg, bpf_ktime_get_ns(), 0);
}

/* Whether the checksum was found to be right: TCP looks at others only after the
 * filter (tcp_checksum_complete).
 */
static __always_inline int is_checked(struct __sk_buff *ctx)
{
	struct sk_buff *skb = kernel_skb(ctx);
	__u8 summed, valid;

	if (ksym_exists(bpf_cast_to_kern_ctx)) {
		summed = BPF_CORE_READ_BITFIELD(skb, ip_summed);
		valid = BPF_CORE_READ_BITFIELD(skb, csum_valid);
	} else {
		summed = BPF_CORE_READ_BITFIELD_PROBED(skb, ip_summed);
		valid = BPF_CORE_READ_BITFIELD_PROBED(skb, csum_valid);
	}
	return valid || summed == CHECKSUM_UNNECESSARY || summed == CHECKSUM_PARTIAL;
}

/* Whether TCP will take what the header says beside the sequence number, by what it
 * knows now: tcp_ack() and tcp_paws_check().
 */
static __always_inline int is_plausible(struct tcp_sock *tp, const struct segment *seg)
{
	if (after(seg->ack_seq, tp->snd_nxt) || after(tp->snd_una - tp->max_window, seg->ack_seq))
		return 0;
	return !seg->has_tsval || !tp->rx_opt.ts_recent ||
	       (__s32)(tp->rx_opt.ts_recent - seg->tsval) <= 1;
}

/* How far ahead a segment may be that TCP takes. It drops others (tcp_sequence), unless
 * its window becomes several times as large while the segment waits for the socket.
 */
static __always_inline __u32 farthest(struct tcp_sock *tp)
{
	__u64 far = 4ULL * tp->window_clamp, wnd = tp->rcv_wnd;

	/* the clamp may have been set after the window was given out */
	far = (far > wnd ? far : wnd) + (1 << 20);
	return far < 1U << 31 ? far : (1U << 31) - 1;
}

/* Whether the numbers in the tcp_sock may not be the connection's yet. If this says no,
 * what is loaded behind it is.
 */
static __always_inline int is_dialing(struct sockmeta_tcp *tcp)
{
	return tcp->dialed && !read_seq(&tcp->established);
}

/* Whether the application has attached a filter: what it leaves of a segment is what TCP
 * gets.
 */
static __always_inline int has_filter(struct bpf_sock *given)
{
	struct sock *sk;

	if (!ksym_exists(bpf_rdonly_cast)) {
		sk = kernel_address(given);
		return !!BPF_CORE_READ(sk, sk_filter);
	}
	sk = bpf_rdonly_cast(given, bpf_core_type_id_kernel(struct sock));
	return !!sk->sk_filter;
}

/* The socket's tcp_sock moves while this runs: it is locked on another CPU, or the
 * segment has to wait in the backlog. Only what cannot become untrue decides what
 * is logged: bytes in front of rcv_nxt are delivered, and stay so.
 */
static __noinline void connection_ingress(struct __sk_buff *ctx, struct bpf_sock *sk,
					  struct sockmeta_sk *st, struct sockmeta_tcp *tcp,
					  const struct segment *seg)
{
	__u32 rcv_nxt, read, start, plausible;
	struct sockmeta_cell *cell;
	struct tcp_sock *tp;
	__u64 n, old;

	if (seg->syn) {
		if (tcp->dialed && !tcp->established && !seg->rst) {
			if (seg->urg)
				mark_urgent(tcp, seg->urgent, seg->start - (1U << 30));
			/* sockops checks that it was the one */
			put_cell(ctx, &tcp->opening, seg, 0, 0);
		}
		return;
	}
	tp = bpf_skc_to_tcp_sock(sk);
	if (!tp)
		return;
	/* it brings nothing (tcp_rcv_established, tcp_validate_incoming) */
	if (seg->rst || !seg->ack) {
		tcp->newer = 1;
		return;
	}
	if (is_dialing(tcp)) {
		/* the socket may be locked, and the SYN-ACK wait in front of this */
		rcv_nxt = seg->start;
		read = seg->start - (1U << 30);
	} else {
		read = tp->copied_seq;
		rcv_nxt = tp->rcv_nxt;
		forget_read(tcp, read);
		if (after(tp->rcv_wup, seg->end) ||
		    after(seg->start, rcv_nxt + farthest(tp)))
			return;
	}
	if (seg->urg)
		mark_urgent(tcp, seg->urgent, read);
	plausible = is_plausible(tp, seg);
	if (!after(seg->end, rcv_nxt)) {
		if (!plausible || !put_cell(ctx, &tcp->control, seg, 0, 1)) {
			tcp->newer = 1;
			return;
		}
		tcp->latest = 0;
		tcp->newer = 0;
		return;
	}
	note_diverted(tcp, sk);
	/* a filter behind this one may cut it */
	if (seg->fin)
		mark_fin(tcp, has_filter(sk) ? seg->start : seg->end - 1, seg->end);
	start = after(rcv_nxt, seg->start) ? rcv_nxt : seg->start;
	cell = next_cell(tcp, &n);
	old = claim(&cell->seq);
	if (old == SOCKMETA_BUSY) {
		mark_lost(tcp, start, seg->end, read);
		tcp->newer = 1;
		return;
	}
	if (old)
		evict(sk, st, tcp, cell, read);
	fill_cell(ctx, cell, seg, start, !plausible || !is_checked(ctx));
	publish(&cell->seq, FIRST_SEQ + n);
	if (plausible)
		tcp->latest = 1 + n;
	tcp->newer = !plausible;
}

/* A segment for a socket that opted in. */
static __always_inline void tcp_ingress(struct __sk_buff *ctx, struct bpf_sock *sk,
					struct sockmeta_sk *st, struct segment *seg)
{
	struct sockmeta_tcp *tcp = bpf_sk_storage_get(&sockmeta_tcps, sk, 0, 0);

	if (!parse_segment(ctx, seg)) {
		/* whatever it brings will have come from nowhere */
		if (tcp)
			tcp->all_lost = 1;
		return;
	}
	if (!tcp || sk->state == TCP_LISTEN) {
		__u32 state = sk->state;

		/* The listener, or a child whose handshake is being completed on another
		 * CPU: then sockops takes what it finds in the table, and what comes
		 * there later has to go into the log as well. So has what comes when it
		 * has just been completed.
		 */
		if (state == TCP_LISTEN || state == TCP_SYN_RECV) {
			seg->flow.realm = netns_of(sk);
			listener_ingress(ctx, seg, state != TCP_LISTEN);
		}
		if (state == TCP_LISTEN)
			return;
		tcp = bpf_sk_storage_get(&sockmeta_tcps, sk, 0, 0);
		if (!tcp)
			return;
	}
	connection_ingress(ctx, sk, st, tcp, seg);
}

#endif

// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/*
 * sockops: gives a TCP connection of a socket that opted in the place for its
 * records, and, once the handshake is done, the record that opened it.
 */
#include "bounds.h"
#include "sending.h"
#include "tcp_log.h"

#define AF_INET 2

static __always_inline void flow_of(struct bpf_sock_ops *ctx, struct sockmeta_flow *f)
{
	if (ctx->family == AF_INET) {
		f->remote[2] = f->local[2] = V4_MAPPED;
		f->remote[3] = ctx->remote_ip4;
		f->local[3] = ctx->local_ip4;
		/* or clang merges this load with the last one below, and the
		 * verifier refuses an address that is computed from ctx
		 */
		barrier();
	} else {
		f->remote[0] = ctx->remote_ip6[0];
		f->remote[1] = ctx->remote_ip6[1];
		f->remote[2] = ctx->remote_ip6[2];
		f->remote[3] = ctx->remote_ip6[3];
		f->local[0] = ctx->local_ip6[0];
		f->local[1] = ctx->local_ip6[1];
		f->local[2] = ctx->local_ip6[2];
		f->local[3] = ctx->local_ip6[3];
	}
	f->remote_port = bpf_ntohl(ctx->remote_port);
	f->local_port = ctx->local_port;
}

static __always_inline void copy_cell(struct sockmeta_cell *to, const struct sockmeta_cell *from)
{
	__builtin_memcpy(&to->skb, &from->skb,
			 sizeof(*to) - __builtin_offsetof(struct sockmeta_cell, skb));
}

/* Copies the cell of the segment that starts at start, into one that is the
 * caller's. The table may give the entry to another flow at any time, so all is
 * checked on the copy.
 */
static __always_inline int take_cell(struct sockmeta_cell *to, struct sockmeta_cell *from,
				     __u32 start)
{
	__u64 seq = read_seq(&from->seq);

	if (!is_record(seq))
		return 0;
	copy_cell(to, from);
	return read_seq(&from->seq) == seq && to->start == start;
}

/* The segment that the connection is established by. It need not be the first of
 * the stream: tcp_check_req() takes any in the window.
 */
struct completing {
	__u64 skb;		/* address */
	__u32 start, end;	/* of what it brings */
	__u32 urgent;		/* as in struct segment */
	__u8 syn, fin, urg;
};

static __always_inline int get_completing(struct bpf_sock_ops *ctx, struct completing *c)
{
	void *data = (void *)(long)ctx->skb_data, *data_end = (void *)(long)ctx->skb_data_end;
	struct bpf_sock_ops_kern *kern;
	struct tcphdr *th = data;

	if ((void *)(th + 1) > data_end)
		return 0;
	c->start = bpf_ntohl(th->seq) + th->syn;
	c->syn = th->syn;
	c->fin = th->fin;
	c->urg = th->urg;
	c->urgent = bpf_ntohl(th->seq) + bpf_ntohs(th->urg_ptr);
	c->end = c->start + ctx->skb_len - th->doff * 4 + th->fin;
	if (ksym_exists(bpf_cast_to_kern_ctx)) {
		kern = bpf_cast_to_kern_ctx(ctx);
		c->skb = (__u64)kern->skb;
	} else {
		kern = kernel_address(ctx);
		c->skb = (__u64)BPF_CORE_READ(kern, skb);
	}
	return 1;
}

/* Whether the cell is of that SYN. It lives, and each SYN that the filter saw is in the
 * cell or has taken its address off it: so no other can have that address.
 */
static __always_inline int is_syn_of(const struct completing *c, const struct sockmeta_cell *cell)
{
	return c->syn && cell->skb == c->skb;
}

/* Fast Open: the SYN has made the child, and its data is delivered. */
static __always_inline int is_fast_open(struct bpf_sock *sk)
{
	struct tcp_sock *tp;

	if (!ksym_exists(bpf_rdonly_cast)) {
		tp = kernel_address(sk);
		return !!BPF_CORE_READ(tp, fastopen_rsk);
	}
	tp = bpf_rdonly_cast(sk, bpf_core_type_id_kernel(struct tcp_sock));
	return !!tp->fastopen_rsk;
}

/* The newest segment is the one that completes the handshake, unless other CPUs have
 * seen more meanwhile.
 */
static __always_inline void put_control(struct sockmeta_tcp *tcp, const struct sockmeta_cell *cell)
{
	__u64 old = claim(&tcp->control.seq);

	if (old == SOCKMETA_BUSY)
		return;
	if (!old)
		copy_cell(&tcp->control, cell);
	publish(&tcp->control.seq, old ? old : FIRST_SEQ);
}

/* Takes what the listener saw of the handshake. A cell is of the segment that
 * completes it if it was filled for that skb: it lives, and each segment that the
 * filter saw took the place of the one before, so that no other can have its address.
 * It is taken to the ring at once, for the bytes that it may bring.
 */
static __always_inline void take_handshake(struct bpf_sock_ops *ctx, struct bpf_sock *sk,
					   struct sockmeta_sk *st, struct sockmeta_tcp *tcp)
{
	struct sockmeta_flow flow = { .realm = netns_of(sk) };
	struct sockmeta_handshake *hs;
	struct sockmeta_cell *cell;
	struct completing c = {};
	sockmeta_range lost;
	int fast_open, found = 0;
	struct tcp_sock *tp;
	__u64 n;

	cell = next_cell(tcp, &n);
	if (!get_completing(ctx, &c) || claim(&cell->seq)) {
		tcp->all_lost = 1;
		return;
	}
	if (c.fin)
		mark_fin(tcp, c.end - 1, c.end);
	if (c.urg)
		mark_urgent(tcp, c.urgent, ctx->rcv_nxt);
	fast_open = is_fast_open(sk);
	flow_of(ctx, &flow);
	hs = bpf_map_lookup_elem(&sockmeta_handshakes, &flow);
	if (hs) {
		/* nothing but this writes the opening record of a child */
		if (take_cell(&tcp->opening, &hs->syn, ctx->rcv_nxt)) {
			tcp->opened = tcp->opening.seq = FIRST_SEQ;
			if (is_syn_of(&c, &tcp->opening))
				tcp->opening_flags = 0;
			else if (read_seq(&hs->syn.seq) / UNIT <= st->since)
				/* the listener may have answered one that came before it
				 * opted in, when another had seen this one
				 */
				tcp->opening_flags = SOCKMETA_F_UNPROVEN;
			else if (hs->repeated || hs->syns > 1 || hs->reset)
				tcp->opening_flags = SOCKMETA_F_REPEATED | SOCKMETA_F_UNPROVEN;
			else if (hs->cookie)
				tcp->opening_flags = SOCKMETA_F_UNPROVEN;
		}
		found = take_cell(cell, fast_open ? &hs->syn : &hs->ack, c.start) &&
			cell->skb == c.skb && cell->end == c.end;
		lost = *(volatile __u64 *)&hs->lost;
		mark_lost(tcp, lost, lost >> 32, ctx->rcv_nxt);
		if (hs->all_lost)
			tcp->all_lost = 1;
		/* it waits for the child, as the one that completes the handshake did */
		if (is_record(hs->ack.seq) && hs->ack.doubtful && hs->ack.skb != c.skb)
			mark_lost(tcp, hs->ack.start, hs->ack.end, ctx->rcv_nxt);
		bpf_map_delete_elem(&sockmeta_handshakes, &flow);
	} else {
		/* the table had no room for what may wait for the child, too */
		tp = bpf_skc_to_tcp_sock(sk);
		if (tp)
			be_late(tcp, tp->rcv_wup, tp->rcv_wnd);
	}
	if (found && !tcp->opened) {
		copy_cell(&tcp->opening, cell);
		tcp->opened = tcp->opening.seq = FIRST_SEQ;
		tcp->opening_flags = SOCKMETA_F_HANDSHAKE_ACK;
	}
	if (found && !fast_open)
		put_control(tcp, cell);
	if (found && c.start != c.end) {
		publish(&cell->seq, FIRST_SEQ + n);
		if (!tcp->latest)
			tcp->latest = 1 + n;
		return;
	}
	publish(&cell->seq, 0);
	mark_lost(tcp, c.start, c.end, ctx->rcv_nxt);
}

/* The peer's SYN-ACK, or, when both have dialed at once, its SYN. Segments that come
 * from now on leave the record alone, or its number tells.
 */
static __always_inline void check_opening(struct bpf_sock_ops *ctx, struct sockmeta_tcp *tcp)
{
	__u64 seq = read_seq(&tcp->opening.seq);
	struct completing c = {};

	if (!is_record(seq) || tcp->opening.start != ctx->rcv_nxt || !get_completing(ctx, &c))
		return;
	tcp->opening_flags = is_syn_of(&c, &tcp->opening) ? SOCKMETA_F_SYNACK : SOCKMETA_F_UNPROVEN;
	tcp->opened = seq;
}

/* The log of a socket that has none yet, which is late unless a connection begins. */
static __always_inline struct sockmeta_tcp *open_log(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	struct sockmeta_tcp *tcp;
	struct tcp_sock *tp;

	tcp = bpf_sk_storage_get(&sockmeta_tcps, sk, 0, 0);
	if (tcp && ctx->op == BPF_SOCK_OPS_TCP_CONNECT_CB) {
		/* of a connection that this socket had before */
		bpf_sk_storage_delete(&sockmeta_tcps, sk);
		bpf_sk_storage_delete(&sockmeta_spill, sk);
		tcp = 0;
	}
	if (tcp)
		return tcp;
	tcp = bpf_sk_storage_get(&sockmeta_tcps, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	tp = bpf_skc_to_tcp_sock(sk);
	if (tcp && tp && ctx->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB)
		be_late(tcp, tp->rcv_wup, tp->rcv_wnd);
	return tcp;
}

/* What it has is a copy of the listener's. */
static __always_inline void new_id(struct sockmeta_sk *st)
{
	struct sockmeta_instance *inst = this_instance();

	if (inst)
		st->id = __sync_fetch_and_add(&inst->last_id, 1) + 1;
	st->transmits = 0;
}

/* Whether anybody holds the socket by a descriptor. */
static __always_inline int is_held(const struct bpf_sock *given)
{
	struct sock *sk = kernel_address(given);

	return !!BPF_CORE_READ(sk, sk_socket);
}

/* The connection goes from one state to another. */
static __always_inline void change_state(struct bpf_sock *sk, __u32 to)
{
	struct sockmeta_seat *seat = bpf_sk_storage_get(&sockmeta_seats, sk, 0, 0);

	if (!seat)
		return;
	if (to != BPF_TCP_CLOSE) {
		seat->closed = 0;
		return;
	}
	/* release.bpf.c marks the last close and then looks for this. */
	__sync_lock_test_and_set(&seat->closed, 1);
	if (__sync_fetch_and_add(&seat->released, 0)) {
		/* the kernel is about to free it all */
		give_back(seat, is_sending(sk, 0));
		return;
	}
	if (is_held(sk))
		return;
	give_back(seat, is_sending(sk, 0));
	/* it may wait long to be accepted, and the listener may have gone then */
	bpf_sk_storage_delete(&sockmeta_tcps, sk);
	bpf_sk_storage_delete(&sockmeta_spill, sk);
	bpf_sk_storage_delete(&sockmeta_conns, sk);
	bpf_sk_storage_delete(&sockmeta_sks, sk);
	bpf_sk_storage_delete(&sockmeta_seats, sk);
}

/* Whether the socket has a seat: what was accepted gets one of its own. */
static __always_inline int is_seated(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
	if (!take_seat(sk))
		return 1;
	bpf_sk_storage_delete(&sockmeta_sks, sk);
	return 0;
}

SEC("sockops")
int sockmeta_sockops(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct sockmeta_tcp *tcp;
	struct sockmeta_sk *st;

	switch (ctx->op) {
	case BPF_SOCK_OPS_STATE_CB:
		if (sk)
			change_state(sk, ctx->args[1]);
		return 1;
	case BPF_SOCK_OPS_TCP_LISTEN_CB:
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		break;
	default:
		return 1;
	}
	if (!sk)
		return 1;
	st = bpf_sk_storage_get(&sockmeta_sks, sk, 0, 0);
	if (!st || !is_seated(ctx, sk) || ctx->op == BPF_SOCK_OPS_TCP_LISTEN_CB)
		return 1;
	tcp = open_log(ctx, sk);
	if (!tcp)
		return 1;
	if (ctx->op == BPF_SOCK_OPS_TCP_CONNECT_CB) {
		tcp->dialed = 1;
		return 1;
	}
	tcp->unread = ctx->rcv_nxt - 1;
	if (tcp->dialed || ctx->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB) {
		check_opening(ctx, tcp);
	} else {
		take_handshake(ctx, sk, st, tcp);
		new_id(st);
	}
	publish(&tcp->established, 1);
	return 1;
}

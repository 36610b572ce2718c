// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/*
 * sockops: gives a TCP connection of a socket that opted in the place for its
 * records, and, once the handshake is done, the record that opened it.
 */
#include "bounds.h"
#include "seqlock.h"
#include "tcp.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

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

/* Takes the record of the segment that starts at start. The table may give
 * the entry to another flow at any time, so all is checked on the copy.
 */
static __always_inline int take_cell(struct sockmeta_cell *to, struct sockmeta_cell *from,
				     __u32 start)
{
	__u64 seq = read_seq(&from->seq);

	if (!is_record(seq))
		return 0;
	__builtin_memcpy(to, from, sizeof(*to));
	if (read_seq(&from->seq) == seq && to->start == start) {
		to->seq = seq;
		return 1;
	}
	to->seq = 0;
	return 0;
}

/* Nothing else runs for the socket yet. */
static __always_inline void append(struct sockmeta_tcp *tcp, const struct sockmeta_cell *cell)
{
	struct sockmeta_cell *to = &tcp->ring[tcp->head & (SOCKMETA_TCP_RING - 1)];

	__builtin_memcpy(to, cell, sizeof(*to));
	to->seq = FIRST_SEQ + tcp->head;
	tcp->latest = ++tcp->head;
}

static __always_inline void take_handshake(struct bpf_sock_ops *ctx, struct sockmeta_sk *st,
					   struct sockmeta_tcp *tcp)
{
	struct sockmeta_flow flow = { .listener = st->id };
	struct sockmeta_handshake *hs;

	flow_of(ctx, &flow);
	hs = bpf_map_lookup_elem(&sockmeta_handshakes, &flow);
	if (!hs)
		return;
	/* Another SYN with the same ports has another sequence number. */
	if (take_cell(&tcp->opening, &hs->syn, ctx->rcv_nxt)) {
		/* Fast Open: the SYN brought the first bytes */
		if (tcp->opening.start != tcp->opening.end)
			append(tcp, &tcp->opening);
	} else if (take_cell(&tcp->opening, &hs->ack, ctx->rcv_nxt)) {
		tcp->opening.rec.flags |= SOCKMETA_F_HANDSHAKE_ACK;
	}
	/* The handshake's last segment may bring the first bytes, too. */
	if (take_cell(&tcp->control, &hs->ack, ctx->rcv_nxt) &&
	    tcp->control.start != tcp->control.end)
		append(tcp, &tcp->control);
	bpf_map_delete_elem(&sockmeta_handshakes, &flow);
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
		give_back(seat);
		return;
	}
	if (is_held(sk))
		return;
	give_back(seat);
	/* it may wait long to be accepted, and the listener may have gone then */
	bpf_sk_storage_delete(&sockmeta_tcps, sk);
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
	tcp = bpf_sk_storage_get(&sockmeta_tcps, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!tcp)
		return 1;

	switch (ctx->op) {
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		tcp->unread = ctx->rcv_nxt - 1;
		if (tcp->opening.start == ctx->rcv_nxt)
			tcp->opening.rec.flags |= SOCKMETA_F_SYNACK;
		else
			tcp->opening.seq = 0;
		tcp->established = 1;
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		tcp->unread = ctx->rcv_nxt - 1;
		take_handshake(ctx, st, tcp);
		new_id(st);
		tcp->established = 1;
		break;
	}
	return 1;
}

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
#include "slots.h"
#include "tcp_ingress.h"

/* include/uapi/linux/if_packet.h */
#define PACKET_LOOPBACK 5

/* Not inlined, for the stack that it needs is not to be there below TCP. */
static __noinline void udp_ingress(struct __sk_buff *ctx, struct sockmeta_sk *st)
{
	struct sockmeta_slot *slot;
	__u64 handle;

	slot = take_slot(&handle);
	if (!slot) {
		ctx->tstamp = handle;
		return;
	}
	slot->owner = st->id;
	slot->tsflags = st->tsflags;
	fill_record(ctx, &slot->rec);
	publish(&slot->seq, handle);
	ctx->tstamp = handle;
}

SEC("cgroup_skb/ingress")
int sockmeta_ingress(struct __sk_buff *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct segment seg = {};
	struct sockmeta_sk *st;

	if (!sk || is_bare(sk))
		return 1;
	st = bpf_sk_storage_get(&sockmeta_sks, sk, 0, 0);
	if (!st)
		return 1;
	/* A copy of what this host sent to a multicast group has its sender's time
	 * (dev_loopback_xmit in net/core/dev.c), which no device took.
	 *
	 * No handle of ours can be there yet. It is another attachment's, whose
	 * socket this is not any more, or a sender made it up: SCM_TXTIME gets
	 * through to receivers of the sender's own multicast, and to those behind a
	 * veth pair in one namespace.
	 */
	if (ctx->pkt_type == PACKET_LOOPBACK || is_handle(ctx->tstamp))
		ctx->tstamp = 0;
	if (st->protocol == IPPROTO_UDP) {
		/* or else recvmsg makes the record (native.bpf.c) */
		if (!(st->flags & SOCKMETA_ENABLE_CMSG) || !tells_itself(ctx))
			udp_ingress(ctx, st);
	} else {
		tcp_ingress(ctx, sk, st, &seg);
	}
	/* no record took it: it is no time that anybody should see */
	if (is_local_number(ctx->tstamp))
		ctx->tstamp = 0;
	return 1;
}

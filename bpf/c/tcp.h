/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/* Where a segment lies in its connection. */
#ifndef SOCKMETA_TCP_H
#define SOCKMETA_TCP_H

#include "maps.h"
#include <bpf/bpf_endian.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>

#define V4_MAPPED bpf_htonl(0xffff)

/* Sequence numbers wrap: RFC 9293, section 3.4. */
static __always_inline int after(__u32 a, __u32 b)
{
	return (__s32)(b - a) < 0;
}

struct segment {
	struct sockmeta_flow flow;
	__u32 start, end;	/* of the payload, SYN and FIN not counted */
	__u32 ack_seq;
	__u8 syn, ack, fin;
};

static __always_inline int parse_ports(struct __sk_buff *ctx, struct tcphdr *th, __u32 off,
				       struct segment *seg)
{
	__u32 hdr = off + th->doff * 4;

	if (hdr > ctx->len)
		return 0;
	seg->flow.remote_port = bpf_ntohs(th->source);
	seg->flow.local_port = bpf_ntohs(th->dest);
	seg->start = bpf_ntohl(th->seq) + th->syn;
	seg->end = seg->start + ctx->len - hdr;
	seg->ack_seq = bpf_ntohl(th->ack_seq);
	seg->syn = th->syn;
	seg->ack = th->ack;
	seg->fin = th->fin;
	return 1;
}

/* The stack has pulled both headers into the linear part by now. */
static __always_inline int parse_segment(struct __sk_buff *ctx, struct segment *seg)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
	struct sockmeta_flow *f = &seg->flow;
	struct tcphdr th;

	if (ctx->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = data;
		__u32 off;

		if ((void *)(ip + 1) > data_end || ip->protocol != IPPROTO_TCP)
			return 0;
		f->remote[2] = f->local[2] = V4_MAPPED;
		f->remote[3] = ip->saddr;
		f->local[3] = ip->daddr;
		off = ip->ihl * 4;
		if (bpf_skb_load_bytes(ctx, off, &th, sizeof(th)))
			return 0;
		return parse_ports(ctx, &th, off, seg);
	}
	if (ctx->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip6 = data;
		__u32 off = sizeof(*ip6), i;
		__u8 next;

		if ((void *)(ip6 + 1) > data_end)
			return 0;
		__builtin_memcpy(f->remote, &ip6->saddr, 16);
		__builtin_memcpy(f->local, &ip6->daddr, 16);
		next = ip6->nexthdr;
		/* hop-by-hop, destination and routing headers; a fragment
		 * was put together before it came here
		 */
		for (i = 0; i < 4 && next != IPPROTO_TCP; i++) {
			struct ipv6_opt_hdr opt;

			if (next != IPPROTO_HOPOPTS && next != IPPROTO_DSTOPTS &&
			    next != IPPROTO_ROUTING)
				return 0;
			if (bpf_skb_load_bytes(ctx, off, &opt, sizeof(opt)))
				return 0;
			next = opt.nexthdr;
			off += (opt.hdrlen + 1) * 8;
		}
		if (next != IPPROTO_TCP || bpf_skb_load_bytes(ctx, off, &th, sizeof(th)))
			return 0;
		return parse_ports(ctx, &th, off, seg);
	}
	return 0;
}

#endif

/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/* Where a segment lies in its connection. */
#ifndef SOCKMETA_TCP_H
#define SOCKMETA_TCP_H

#include "packet.h"
#include <linux/tcp.h>

/* Sequence numbers wrap: RFC 9293, section 3.4. */
static __always_inline int after(__u32 a, __u32 b)
{
	return (__s32)(b - a) < 0;
}

struct segment {
	struct sockmeta_flow flow;
	__u32 start, end;	/* what it brings: payload and FIN, not the SYN */
	__u32 ack_seq;
	__u32 urgent;		/* number of the urgent byte, if urg */
	__u32 tsval;		/* of the timestamp option, if it has_tsval */
	__u8 syn, ack, fin, rst, urg, has_tsval;
};

/* The timestamp option as all stacks send it: alone behind two NOPs, which is what
 * tcp_parse_aligned_timestamp() looks for.
 */
struct aligned_timestamp {
	__be32 head;
	__be32 tsval;
};

#define ALIGNED_TIMESTAMP 0x0101080a

static __always_inline int parse_ports(struct __sk_buff *ctx, struct tcphdr *th, __u32 off,
				       struct segment *seg)
{
	__u32 hdr = off + th->doff * 4;
	struct aligned_timestamp ts;

	if (hdr > ctx->len)
		return 0;
	seg->flow.remote_port = bpf_ntohs(th->source);
	seg->flow.local_port = bpf_ntohs(th->dest);
	seg->start = bpf_ntohl(th->seq) + th->syn;
	seg->end = seg->start + ctx->len - hdr + th->fin;
	seg->ack_seq = bpf_ntohl(th->ack_seq);
	seg->urgent = bpf_ntohl(th->seq) + bpf_ntohs(th->urg_ptr);
	seg->syn = th->syn;
	seg->ack = th->ack;
	seg->fin = th->fin;
	seg->rst = th->rst;
	seg->urg = th->urg;
	if (hdr >= off + sizeof(*th) + sizeof(ts) &&
	    !bpf_skb_load_bytes(ctx, off + sizeof(*th), &ts, sizeof(ts)) &&
	    ts.head == bpf_htonl(ALIGNED_TIMESTAMP)) {
		seg->tsval = bpf_ntohl(ts.tsval);
		seg->has_tsval = 1;
	}
	return 1;
}

/* What the kernel's look-ups of sockets take. Returns its size. */
static __always_inline __u32 fill_tuple(struct __sk_buff *ctx, struct bpf_sock_tuple *t,
					const __u32 *from, __u16 from_port,
					const __u32 *to, __u16 to_port)
{
	if (ctx->protocol == bpf_htons(ETH_P_IP)) {
		t->ipv4.saddr = from[3];
		t->ipv4.daddr = to[3];
		t->ipv4.sport = bpf_htons(from_port);
		t->ipv4.dport = bpf_htons(to_port);
		return sizeof(t->ipv4);
	}
	__builtin_memcpy(t->ipv6.saddr, from, 16);
	__builtin_memcpy(t->ipv6.daddr, to, 16);
	t->ipv6.sport = bpf_htons(from_port);
	t->ipv6.dport = bpf_htons(to_port);
	return sizeof(t->ipv6);
}

/* The stack has pulled both headers into the linear part by now. */
static __always_inline int parse_segment(struct __sk_buff *ctx, struct segment *seg)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
	struct sockmeta_flow *f = &seg->flow;
	struct tcphdr th;
	__u32 off;

	if (ctx->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = data;

		if ((void *)(ip + 1) > data_end || ip->protocol != IPPROTO_TCP)
			return 0;
		off = take_ipv4(ip, f->remote, f->local);
	} else if (ctx->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip6 = data;

		if ((void *)(ip6 + 1) > data_end)
			return 0;
		take_ipv6(ip6, f->remote, f->local);
		off = tcp_offset6(ctx, ip6);
	} else {
		return 0;
	}
	if (bpf_skb_load_bytes(ctx, off, &th, sizeof(th)))
		return 0;
	return parse_ports(ctx, &th, off, seg);
}

#endif

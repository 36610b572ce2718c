// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/*
 * Producers for tests: each packet's metadata repeats what the packet itself
 * says, so whoever reads both can tell whether they belong together.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include "../../../bpf/include/sockmeta.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Same numbers as in doc.go. */
#define KEY_ID 16	/* u64 */
#define KEY_SEQ 17	/* u32 */
#define KEY_LEN 18	/* u32 */
#define KEY_FILLER 19	/* FILLER_WORDS times the id */
#define FILLER_WORDS 20
#define FILLER_LEAST 4

/* Packets of the wanted protocol that went on without metadata. */
__u64 refused;

/* Finds the header behind IPv4 or IPv6, and the bytes from there to the end of
 * the IP packet: Ethernet pads short frames.
 */
static __always_inline void *transport(void *p, void *end, __u8 proto, __u32 *len)
{
	struct ethhdr *eth = p;

	p = eth + 1;
	if (p > end)
		return 0;
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = p;

		if ((void *)(ip + 1) > end || ip->protocol != proto || ip->ihl < 5)
			return 0;
		*len = bpf_ntohs(ip->tot_len) - ip->ihl * 4;
		return p + ip->ihl * 4;
	}
	if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip6 = p;

		if ((void *)(ip6 + 1) > end || ip6->nexthdr != proto)
			return 0;
		*len = bpf_ntohs(ip6->payload_len);
		return ip6 + 1;
	}
	return 0;
}

SEC("xdp")
int echo_udp(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u64 filler[FILLER_WORDS];
	struct udphdr *udp;
	__u32 len, i;
	__u64 id;

	udp = transport(data, end, IPPROTO_UDP, &len);
	if (!udp || (void *)(udp + 1) + sizeof(id) > end)
		return XDP_PASS;
	__builtin_memcpy(&id, udp + 1, sizeof(id));
	for (i = 0; i < FILLER_WORDS; i++)
		filler[i] = id;
	/* the id comes to lie at the area's end and the filler in front of it,
	 * so that a copy that was torn anywhere shows; FILLER_LEAST bytes of it are
	 * what fits where the kernel allows areas of 32 bytes
	 */
	if (sockmeta_put(ctx, KEY_ID, &id, sizeof(id)) ||
	    (sockmeta_put(ctx, KEY_FILLER, filler, sizeof(filler)) &&
	     sockmeta_put(ctx, KEY_FILLER, filler, FILLER_LEAST)))
		__sync_fetch_and_add(&refused, 1);
	return XDP_PASS;
}

/* For the other end of the link, whose counters do not tell a datagram that they
 * drop from what a host sends on its own, as a router solicitation.
 */
SEC("tcx/egress")
int only_udp(struct __sk_buff *skb)
{
	__u32 len;

	if (!transport((void *)(long)skb->data, (void *)(long)skb->data_end, IPPROTO_UDP, &len))
		return TC_ACT_SHOT;
	return TC_ACT_UNSPEC;
}

SEC("xdp")
int echo_tcp(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct tcphdr *tcp;
	__u32 len, seq;

	tcp = transport(data, end, IPPROTO_TCP, &len);
	if (!tcp || (void *)(tcp + 1) > end)
		return XDP_PASS;
	seq = bpf_ntohl(tcp->seq);
	len -= tcp->doff * 4;
	if (sockmeta_put(ctx, KEY_SEQ, &seq, sizeof(seq)) ||
	    sockmeta_put(ctx, KEY_LEN, &len, sizeof(len)))
		__sync_fetch_and_add(&refused, 1);
	return XDP_PASS;
}

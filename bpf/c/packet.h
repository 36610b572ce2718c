/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/* Where a packet is from, where it goes, and where its transport header is. */
#ifndef SOCKMETA_PACKET_H
#define SOCKMETA_PACKET_H

#include "kfuncs.h"
#include "maps.h"
#include <bpf/bpf_endian.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#define V4_MAPPED bpf_htonl(0xffff)

/* Both take addresses as struct sockmeta_flow has them, and return the header's size. */
static __always_inline __u32 take_ipv4(const struct iphdr *ip, __u32 *source, __u32 *dest)
{
	source[2] = dest[2] = V4_MAPPED;
	source[3] = ip->saddr;
	dest[3] = ip->daddr;
	return ip->ihl * 4;
}

static __always_inline __u32 take_ipv6(const struct ipv6hdr *ip6, __u32 *source, __u32 *dest)
{
	__builtin_memcpy(source, &ip6->saddr, 16);
	__builtin_memcpy(dest, &ip6->daddr, 16);
	return sizeof(*ip6);
}

/* Addresses and ports of a packet that is not a fragment and has no IPv6
 * extension headers, each as the sender has them: remote is the receiver.
 */
static __always_inline int flow_of_packet(struct __sk_buff *ctx, struct sockmeta_flow *f)
{
	struct { __be16 source, dest; } ports;
	__u32 off;
	__u8 proto;

	if (ctx->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr ip;

		if (bpf_skb_load_bytes_relative(ctx, 0, &ip, sizeof(ip), BPF_HDR_START_NET) ||
		    ip.frag_off & bpf_htons(0x3fff))
			return 0;
		off = take_ipv4(&ip, f->local, f->remote);
		proto = ip.protocol;
	} else if (ctx->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr ip6;

		if (bpf_skb_load_bytes_relative(ctx, 0, &ip6, sizeof(ip6), BPF_HDR_START_NET))
			return 0;
		off = take_ipv6(&ip6, f->local, f->remote);
		proto = ip6.nexthdr;
	} else {
		return 0;
	}
	if ((proto != IPPROTO_UDP && proto != IPPROTO_TCP) ||
	    bpf_skb_load_bytes_relative(ctx, off, &ports, sizeof(ports), BPF_HDR_START_NET))
		return 0;
	f->remote_port = bpf_ntohs(ports.dest);
	f->local_port = bpf_ntohs(ports.source);
	/* what else tells flows apart */
	f->realm = proto;
	return 1;
}

/* Where the header is that the packet's own do not lead to, such as behind an IPv6
 * fragment header that is of no fragment: TCP has been given it.
 */
static __always_inline __u32 given_offset(struct __sk_buff *ctx)
{
	struct sk_buff *skb = kernel_skb(ctx);

	if (ksym_exists(bpf_cast_to_kern_ctx))
		return skb->transport_header - skb->network_header;
	return BPF_CORE_READ(skb, transport_header) - BPF_CORE_READ(skb, network_header);
}

static __always_inline __u32 tcp_offset6(struct __sk_buff *ctx, const struct ipv6hdr *ip6)
{
	__u32 off = sizeof(*ip6), i;
	__u8 next = ip6->nexthdr;

	/* hop-by-hop, destination and routing headers; a fragment was put together
	 * before it came here
	 */
	for (i = 0; i < 4 && next != IPPROTO_TCP; i++) {
		struct ipv6_opt_hdr opt;

		if ((next != IPPROTO_HOPOPTS && next != IPPROTO_DSTOPTS &&
		     next != IPPROTO_ROUTING) ||
		    bpf_skb_load_bytes(ctx, off, &opt, sizeof(opt)))
			break;
		next = opt.nexthdr;
		off += (opt.hdrlen + 1) * 8;
	}
	return next == IPPROTO_TCP ? off : given_offset(ctx);
}

#endif

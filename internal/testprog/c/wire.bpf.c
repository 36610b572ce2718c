// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/*
 * Consumers for tests, written with sockmeta_tx.h as the programs of others
 * would be: they read the metadata of what leaves and compare it with what the
 * packet itself says.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include "../../../bpf/include/sockmeta_tx.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Same numbers as in doc.go. */
#define KEY_ID 16	/* u64 */

#define NO_METADATA (1ULL << 63)

struct wire_counts {
	__u64 packets;		/* of the protocol that the program is about */
	__u64 matched;
	__u64 mismatched;	/* another packet's record */
	__u64 absent;		/* no record, and none was sent */
	__u64 unexpected;	/* a record where none was sent */
	__u64 doubtful;		/* -ESTALE where none was sent */
	__u64 lost;		/* no record where one was sent */
	__u64 tstamp;		/* packets that still had a time */
	__u64 wrong_mark;	/* not the id's, or none where there was no record */
	__u64 last_id;		/* of the last record */
	__u64 last_tstamp;
	__u32 last_mark;
	__u32 last_priority;
	__u64 bad_id;		/* of the last packet that did not match, */
	__u64 bad_record;	/* and the record's, */
	__s64 bad_err;		/* or what sockmeta_tx_get() said */
};

struct wire_counts tc, cgroup;

/* The bits of an id that are in its packet's mark, too; 0: none are looked at. */
const volatile __u32 mark_mask;

/* One of so many TCP packets with payload is lost. */
const volatile __u32 drop_every = 1;
__u64 drop_seen, dropped;

/* Offset of the transport header, of the wanted protocol and no later fragment,
 * from that of the network header; 0 for other packets.
 */
static __always_inline __u32 transport(struct __sk_buff *skb, __u8 proto)
{
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr ip;

		if (bpf_skb_load_bytes_relative(skb, 0, &ip, sizeof(ip), BPF_HDR_START_NET) ||
		    ip.protocol != proto || ip.frag_off & bpf_htons(0x1fff))
			return 0;
		return ip.ihl * 4;
	}
	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr ip6;

		if (bpf_skb_load_bytes_relative(skb, 0, &ip6, sizeof(ip6), BPF_HDR_START_NET) ||
		    ip6.nexthdr != proto)
			return 0;
		return sizeof(ip6);
	}
	return 0;
}

/* Whether the packet is an IPv6 fragment behind a routing header. */
static __always_inline int is_routed_fragment(struct __sk_buff *skb)
{
	struct ipv6hdr ip6;
	__u8 next;

	return skb->protocol == bpf_htons(ETH_P_IPV6) &&
	       !bpf_skb_load_bytes_relative(skb, 0, &ip6, sizeof(ip6), BPF_HDR_START_NET) &&
	       ip6.nexthdr == IPPROTO_ROUTING &&
	       !bpf_skb_load_bytes_relative(skb, sizeof(ip6), &next, sizeof(next), BPF_HDR_START_NET) &&
	       next == IPPROTO_FRAGMENT;
}

static __always_inline void compare(struct __sk_buff *skb, struct wire_counts *c, __u64 want)
{
	__u64 id = 0;
	int err;

	__sync_fetch_and_add(&c->packets, 1);
	err = sockmeta_tx_get(skb, KEY_ID, &id, sizeof(id));
	if (!err) {
		c->last_id = id;
		c->last_mark = skb->mark;
		c->last_priority = skb->priority;
	}
	/* whether or not the record can still be found */
	if (mark_mask && skb->mark != (want & NO_METADATA ? 0 : want & mark_mask))
		__sync_fetch_and_add(&c->wrong_mark, 1);
	if (skb->tstamp) {
		__sync_fetch_and_add(&c->tstamp, 1);
		c->last_tstamp = skb->tstamp;
	}
	if (want & NO_METADATA) {
		if (err == -2) {
			__sync_fetch_and_add(&c->absent, 1);
			return;
		}
		if (err == -116)
			__sync_fetch_and_add(&c->doubtful, 1);
		else
			__sync_fetch_and_add(&c->unexpected, 1);
	} else if (!err && id == want) {
		__sync_fetch_and_add(&c->matched, 1);
		return;
	} else if (!err) {
		__sync_fetch_and_add(&c->mismatched, 1);
	} else {
		__sync_fetch_and_add(&c->lost, 1);
	}
	c->bad_id = want;
	c->bad_record = id;
	c->bad_err = err;
}

/* A datagram begins with the id that is in its metadata, or has bit 63 set in
 * it where it was sent without. Fragments are always without.
 */
static __always_inline void compare_udp(struct __sk_buff *skb, struct wire_counts *c, __u32 l2)
{
	__u32 off = transport(skb, IPPROTO_UDP);
	__u64 id;

	if (is_routed_fragment(skb)) {
		compare(skb, c, NO_METADATA);
		return;
	}
	/* not relative: that reads the linear part only */
	if (off && !bpf_skb_load_bytes(skb, l2 + off + 8, &id, sizeof(id)))
		compare(skb, c, id);
}

SEC("tcx/egress")
int tc_udp(struct __sk_buff *skb)
{
	compare_udp(skb, &tc, ETH_HLEN);
	return TC_ACT_UNSPEC;
}

SEC("cgroup_skb/egress")
int cgroup_udp(struct __sk_buff *skb)
{
	compare_udp(skb, &cgroup, 0);
	return 1;
}

/* The record that the packets of each connection should have, by the port that
 * is not the sender's.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u16);
	__type(value, __u64);
} connections SEC(".maps");

struct ports {
	__be16 source, dest;
};

static __always_inline void compare_tcp(struct __sk_buff *skb, struct wire_counts *c)
{
	__u32 off = transport(skb, IPPROTO_TCP);
	struct ports ports;
	__u64 *want;
	__u16 port;

	if (!off || bpf_skb_load_bytes_relative(skb, off, &ports, sizeof(ports), BPF_HDR_START_NET))
		return;
	port = bpf_ntohs(ports.dest);
	want = bpf_map_lookup_elem(&connections, &port);
	if (want)
		compare(skb, c, *want);
}

SEC("tcx/egress")
int tc_tcp(struct __sk_buff *skb)
{
	compare_tcp(skb, &tc);
	return TC_ACT_UNSPEC;
}

/* On the receiver: to a sender that hears of the loss it would be none. */
SEC("tcx/ingress")
int lose_tcp(struct __sk_buff *skb)
{
	if (!transport(skb, IPPROTO_TCP) || skb->len < 200 ||
	    __sync_fetch_and_add(&drop_seen, 1) % drop_every != drop_every - 1)
		return TC_ACT_UNSPEC;
	__sync_fetch_and_add(&dropped, 1);
	return TC_ACT_SHOT;
}

SEC("cgroup_skb/egress")
int cgroup_tcp(struct __sk_buff *skb)
{
	compare_tcp(skb, &cgroup);
	return 1;
}

/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * Where the producer's area is, and whether it is one. What lies in front of the mac
 * header is the producer's unless something moved that header: after decapsulation it
 * is the tunnel's headers, which a remote host wrote. The host's secret alone tells the
 * two apart. It must not get to user space: the bytes that may hold it are looked at on
 * the stack, before any are copied to where applications can read.
 */
#ifndef SOCKMETA_AREA_H
#define SOCKMETA_AREA_H

#include "kfuncs.h"
#include "maps.h"
#include <bpf/bpf_endian.h>
#include <linux/in.h>
#include "../include/sockmeta.h"

/*
 * Without the seal nothing tells the producer's bytes from what lies in front of a
 * mac header that decapsulation moved, except where the packet came from: hardware or
 * loopback, or a device that leaves headers alone, and never through IPsec. It
 * does not make the bytes trustworthy: such a device may pass on what another one
 * decapsulated.
 */
static __always_inline int may_be_decapsulated(struct sk_buff *skb)
{
	const struct rtnl_link_ops *ops = BPF_CORE_READ(skb, dev, rtnl_link_ops);
	char kind[8] = {};

	if (bpf_core_field_exists(skb->active_extensions) &&
	    bpf_core_enum_value_exists(enum skb_ext_id, SKB_EXT_SEC_PATH) &&
	    BPF_CORE_READ(skb, active_extensions) &
		    (1 << bpf_core_enum_value(enum skb_ext_id, SKB_EXT_SEC_PATH)))
		return 1;
	/* L2TP's have no kind either */
	if (!ops)
		return !BPF_CORE_READ(skb, dev, dev.parent) &&
		       !(BPF_CORE_READ(skb, dev, flags) & IFF_LOOPBACK);
	bpf_probe_read_kernel_str(kind, sizeof(kind), BPF_CORE_READ(ops, kind));
	switch (*(__u64 *)kind) {
#define KIND(a, b, c, d, e, f) \
	((__u64)a | (__u64)b << 8 | (__u64)c << 16 | (__u64)d << 24 | (__u64)e << 32 | (__u64)f << 40)
	case KIND('v', 'e', 't', 'h', 0, 0):
	case KIND('n', 'e', 't', 'k', 'i', 't'):
	case KIND('v', 'l', 'a', 'n', 0, 0):
	case KIND('b', 'o', 'n', 'd', 0, 0):
#undef KIND
		return 0;
	}
	return 1;
}

/* The area of a packet on its way to a socket. */
struct area {
	__u64 end;		/* address of the mac header, in front of which it should be */
	__u32 len;		/* 0: there is none */
	__u32 room;		/* bytes of the packet in front of end */
	__u32 segs;		/* of a GRO aggregate */
};

static __always_inline void find_area(struct sk_buff *skb, struct area *a)
{
	struct skb_shared_info *shinfo;

	if (ksym_exists(bpf_rdonly_cast)) {
		shinfo = bpf_rdonly_cast(skb->head + skb->end,
					 bpf_core_type_id_kernel(struct skb_shared_info));
		a->segs = shinfo->gso_segs;
		a->len = shinfo->meta_len;
		a->room = skb->mac_header;
		if (!a->len)
			return;
		/* what verifiers since Linux 6.17 have for memory, and not for a number */
		a->end = (__u64)kernel_address(skb->head) + a->room;
	} else {
		a->end = (__u64)BPF_CORE_READ(skb, head);
		shinfo = (void *)(a->end + BPF_CORE_READ(skb, end));
		a->segs = BPF_CORE_READ(shinfo, gso_segs);
		a->len = BPF_CORE_READ(shinfo, meta_len);
		a->room = BPF_CORE_READ(skb, mac_header);
		a->end += a->room;
	}
}

/* Whether the packet has so many bytes in front of its mac header, and one at all
 * (skb_mac_header_was_set).
 */
static __always_inline int has_room(const struct area *a, __u32 len)
{
	return a->room != (__u16)~0U && len <= a->room;
}

/*
 * What an area ends in, as one number: the functions below that return it are global,
 * for the verifier to look at each once, and not at what follows for all that it may be.
 */
#define ENDING_SIZE(e) ((__u32)(e) & 0xff)	/* of the seal with its gap, or of the anchor; 0: neither */
#define ENDING_FORMAT(e) ((__u32)(e) >> 8 & 0xff)
#define ENDING_SEALED (1 << 16)			/* by the host's secret */
#define ENDING_READ (1 << 17)			/* else the memory could not be read */

/* What the ending is read with: no seal and gap are longer. */
#define ENDING_MAX (SOCKMETA_SEAL_SIZE + SOCKMETA_SEAL_GAP)

static __always_inline int is_seal(__u32 word, __u32 gap)
{
	return (bpf_ntohl(word) & 0xffffff00) ==
	       ((__u32)SOCKMETA_KEY_ANCHOR << 24 | (SOCKMETA_SEAL_SIZE - 2 + gap) << 16 |
		SOCKMETA_SEAL_MAGIC << 8);
}

/* words are the last ENDING_MAX bytes of the area, or as many that lie in front of a
 * shorter one.
 */
static __always_inline __u32 parse_ending(const __u32 words[4], __u32 len)
{
	const struct sockmeta_host *host = sockmeta_this_host();
	const __u32 *seal;
	__u32 e = ENDING_READ;

	if (len >= ENDING_MAX && is_seal(words[0], SOCKMETA_SEAL_GAP)) {
		seal = words;
		e |= ENDING_MAX;
	} else if (len >= SOCKMETA_SEAL_SIZE && is_seal(words[1], 0)) {
		seal = words + 1;
		e |= SOCKMETA_SEAL_SIZE;
	} else if ((bpf_ntohl(words[3]) & 0xffffff00) == SOCKMETA_ANCHOR(0)) {
		return e | SOCKMETA_ANCHOR_SIZE | (bpf_ntohl(words[3]) & 0xff) << 8;
	} else {
		return e;
	}
	if (host && seal[1] == host->secret[0] && seal[2] == host->secret[1])
		e |= ENDING_SEALED;
	return e | (bpf_ntohl(seal[0]) & 0xff) << 8;
}

__noinline __u32 read_ending(__u64 end, __u32 len)
{
	__u32 words[4] = {};

	if (bpf_probe_read_kernel(words, sizeof(words), (void *)(end - sizeof(words))))
		return 0;
	return parse_ending(words, len);
}

/*
 * Whether these are the outer headers of a tunnel, Ethernet and IP, that leave so many
 * bytes for what is between them and the packet inside: nothing but what this packet
 * brought lies in front of them. Buffers are used again, and further in front there
 * may be another packet's area.
 */
static __always_inline int is_outer(__u64 mac, __u32 inside)
{
	__u8 h[14 + 10], proto;

	if (bpf_probe_read_kernel(h, sizeof(h), (void *)mac))
		return 0;
	if (h[12] == 0x08 && h[13] == 0x00 && h[14] == 0x45)
		proto = inside >= 14 + 20 ? h[14 + 9] : 0;
	else if (h[12] == 0x86 && h[13] == 0xdd && h[14] >> 4 == 6)
		proto = inside >= 14 + 40 ? h[14 + 6] : 0;
	else
		return 0;
	return proto == IPPROTO_UDP || proto == IPPROTO_GRE || proto == IPPROTO_IPIP ||
	       proto == IPPROTO_IPV6;
}

/* Of find_outer(). */
struct outer {
	__u64 end;
	__u32 len, room, may_have_tag;
	__u32 distance;		/* the answer */
};

/* For bpf_loop(), as the verifier would go through each turn. */
static int look_for_outer(__u32 i, struct outer *o)
{
	__u32 distance = 14 + (i < 5 ? 20 : 40) + i % 5 * 4;

	if (distance + o->len > o->room)
		return 1;
	if ((o->may_have_tag && o->len > distance) ||
	    !(read_ending(o->end - distance, o->len) & ENDING_SEALED) ||
	    !is_outer(o->end - distance, distance))
		return 0;
	o->distance = distance;
	return 1;
}

/*
 * Finds the area of a packet that was decapsulated since, which is where it was: in
 * front of the outer headers. Those are Ethernet, IPv4 or IPv6, and up to 16 bytes: none
 * (IPIP), of GRE with what options it has, or of UDP with VXLAN, Geneve without options,
 * or GUE. Returns how far in front of the mac header it ends, 0 if it was not found.
 *
 * When the kernel takes a VLAN tag from the packet inside, it moves what it takes for
 * the area, which is as many bytes in front of the tag (skb_reorder_vlan_header). Those
 * of a longer area than the outer headers would be a part of the area itself.
 */
__noinline __u32 find_outer(__u64 end, __u32 len, __u32 room, __u32 may_have_tag)
{
	struct outer o = { .end = end, .len = len, .room = room, .may_have_tag = may_have_tag };

	bpf_loop(10, look_for_outer, &o, 0);
	return o.distance;
}

/* Of holds_secret(). */
struct secret_search {
	__u64 area;
	__u64 seen;		/* the last 8 bytes */
	__u32 len;
	__u32 first, second;	/* the secret's halves */
	__u32 found;
};

static int look_for_secret(__u32 i, struct secret_search *s)
{
	__u32 word, shift;

	if (i * sizeof(word) >= s->len)
		return 1;
	if (bpf_probe_read_kernel(&word, sizeof(word), (void *)(s->area + i * sizeof(word)))) {
		s->found = 1;
		return 1;
	}
	s->seen = s->seen << 32 | bpf_ntohl(word);
	for (shift = 0; shift < 32; shift += 8) {
		__u32 at = s->seen >> shift;

		/* no branches, which the verifier would follow each */
		s->found |= !(at ^ s->first) | !(at ^ s->second);
	}
	return 0;
}

/*
 * Whether the secret, or half of it, is anywhere in the area: something moved or cut a
 * sealed one, as a VLAN tag does that is pushed or popped, and others are not to see
 * what is left.
 */
__noinline int holds_secret(__u64 area, __u32 len)
{
	const struct sockmeta_host *host = sockmeta_this_host();
	struct secret_search s = { .area = area, .len = len };

	if (!host)
		return 0;
	s.first = bpf_ntohl(host->secret[0]);
	s.second = bpf_ntohl(host->secret[1]);
	bpf_loop(SOCKMETA_AREA_MAX / sizeof(__u32), look_for_secret, &s, 0);
	return !!s.found;
}

static __always_inline void fill_area(struct __sk_buff *ctx, struct sockmeta_record *rec)
{
	struct sk_buff *skb = kernel_skb(ctx);
	__u32 len, ending, distance;
	struct area area = {};
	__u64 end;

	find_area(skb, &area);
	if (area.segs > 1)
		rec->flags |= SOCKMETA_F_AGGREGATE;
	/* a multiple of 4, which the mask tells the verifier, like the bound */
	len = area.len & SOCKMETA_AREA_MAX;
	if (!len)
		return;
	if (!has_room(&area, len)) {
		rec->flags |= SOCKMETA_F_DECAPSULATED;
		return;
	}
	end = area.end;
	ending = read_ending(end, len);
	if (!(ending & ENDING_READ)) {
		rec->flags |= SOCKMETA_F_UNREADABLE;
		return;
	}
	if (!(ending & ENDING_SEALED)) {
		distance = find_outer(end, len, area.room,
				      BPF_CORE_READ(skb, dev, type) == ARPHRD_ETHER);
		if (distance) {
			end -= distance;
			ending = read_ending(end, len);
		} else if (may_be_decapsulated(skb) || holds_secret(end - len, len)) {
			rec->flags |= SOCKMETA_F_DECAPSULATED;
			return;
		} else {
			rec->flags |= SOCKMETA_F_UNANCHORED;
		}
	}
	end -= len;
	len = (len - ENDING_SIZE(ending)) & SOCKMETA_AREA_MAX;
	if (len && bpf_probe_read_kernel(rec->area, len, (void *)end)) {
		rec->flags |= SOCKMETA_F_UNREADABLE;
		return;
	}
	rec->format = ENDING_FORMAT(ending);
	if (ENDING_SIZE(ending)) {
		*(__u32 *)&rec->area[len] = bpf_htonl(SOCKMETA_ANCHOR(rec->format));
		len += SOCKMETA_ANCHOR_SIZE;
	}
	rec->area_len = len;
}

/*
 * Whether all that there is to know of a datagram can still be read off it when
 * recvmsg takes it from the queue: not where it came from, which an area without the
 * seal takes, and not what a sender on this host gave.
 */
static __always_inline int tells_itself(struct __sk_buff *ctx)
{
	struct area area = {};

	if (is_local_number(ctx->tstamp))
		return 0;
	find_area(kernel_skb(ctx), &area);
	return !area.len || (has_room(&area, area.len) &&
			     read_ending(area.end, area.len) & ENDING_SEALED);
}

#endif

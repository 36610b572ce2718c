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
	unsigned char *end;	/* the mac header, in front of which it should be */
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
		a->end = skb->head + a->room;
	} else {
		a->end = BPF_CORE_READ(skb, head);
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

/* What an area ends in. */
struct ending {
	__u32 size;		/* of the seal with its gap, or of the anchor; 0: neither */
	__u8 format;
	__u8 sealed;		/* by the host's secret */
};

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
static __always_inline void parse_ending(const __u32 words[4], __u32 len, struct ending *e)
{
	const struct sockmeta_host *host = sockmeta_this_host();
	const __u32 *seal = 0;

	e->size = 0;
	e->format = SOCKMETA_FORMAT_TLV;
	e->sealed = 0;
	if (len >= ENDING_MAX && is_seal(words[0], SOCKMETA_SEAL_GAP)) {
		seal = words;
		e->size = ENDING_MAX;
	} else if (len >= SOCKMETA_SEAL_SIZE && is_seal(words[1], 0)) {
		seal = words + 1;
		e->size = SOCKMETA_SEAL_SIZE;
	} else if ((bpf_ntohl(words[3]) & 0xffffff00) == SOCKMETA_ANCHOR(0)) {
		e->size = SOCKMETA_ANCHOR_SIZE;
		e->format = bpf_ntohl(words[3]) & 0xff;
		return;
	} else {
		return;
	}
	e->format = bpf_ntohl(seal[0]) & 0xff;
	e->sealed = host && seal[1] == host->secret[0] && seal[2] == host->secret[1];
}

static __always_inline int read_ending(const unsigned char *end, __u32 len, struct ending *e)
{
	__u32 words[4] = {};

	if (bpf_probe_read_kernel(words, sizeof(words), end - sizeof(words)))
		return 0;
	parse_ending(words, len, e);
	return 1;
}

/*
 * Whether these are the outer headers of a tunnel, Ethernet and IP, that leave so many
 * bytes for what is between them and the packet inside: nothing but what this packet
 * brought lies in front of them. Buffers are used again, and further in front there
 * may be another packet's area.
 */
static __always_inline int is_outer(const unsigned char *mac, __u32 inside)
{
	__u8 h[14 + 10], proto;

	if (bpf_probe_read_kernel(h, sizeof(h), mac))
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

/*
 * Finds the area of a packet that was decapsulated since, which is where it was: in
 * front of the outer headers. Those are Ethernet, IPv4 or IPv6, and up to 16 bytes: none
 * (IPIP), of GRE with what options it has, or of UDP with VXLAN, Geneve without options,
 * or GUE. Returns how far in front of the mac header it ends, 0 if it was not found.
 */
static __noinline __u32 find_outer(unsigned char *end, __u32 len, __u32 room, struct ending *e)
{
	__u32 i, distance;

	for (i = 0; i < 10; i++) {
		distance = 14 + (i < 5 ? 20 : 40) + i % 5 * 4;
		if (distance + len > room)
			break;
		if (read_ending(end - distance, len, e) && e->sealed &&
		    is_outer(end - distance, distance))
			return distance;
	}
	return 0;
}

/*
 * Whether the secret, or half of it, is anywhere in the area: something moved or cut a
 * sealed one, as a VLAN tag does that is pushed or popped, and others are not to see
 * what is left.
 */
static __noinline int holds_secret(const unsigned char *area, __u32 len)
{
	const struct sockmeta_host *host = sockmeta_this_host();
	__u32 words[16], first, second, off, i, byte;
	__u64 seen = 0;

	if (!host)
		return 0;
	first = bpf_ntohl(host->secret[0]);
	second = bpf_ntohl(host->secret[1]);
	for (off = 0; off < 256; off += sizeof(words)) {
		if (off >= len)
			break;
		if (bpf_probe_read_kernel(words, sizeof(words), area + off))
			return 1;
		for (i = 0; i < 16; i++) {
			seen = seen << 32 | bpf_ntohl(words[i]);
			for (byte = 0; byte < 4; byte++) {
				__u32 at = seen >> (24 - 8 * byte);

				if (at == first || at == second)
					return 1;
			}
		}
	}
	return 0;
}

static __always_inline void fill_area(struct __sk_buff *ctx, struct sockmeta_record *rec)
{
	struct sk_buff *skb = kernel_skb(ctx);
	struct ending end = {};
	struct area area;
	__u32 len;

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
	if (!read_ending(area.end, len, &end)) {
		rec->flags |= SOCKMETA_F_UNREADABLE;
		return;
	}
	if (!end.sealed) {
		struct ending outer = {};
		__u32 distance = find_outer(area.end, len, area.room, &outer);

		if (distance) {
			area.end -= distance;
			end = outer;
		} else if (may_be_decapsulated(skb) || holds_secret(area.end - len, len)) {
			rec->flags |= SOCKMETA_F_DECAPSULATED;
			return;
		} else {
			rec->flags |= SOCKMETA_F_UNANCHORED;
		}
	}
	area.end -= len;
	len = (len - end.size) & SOCKMETA_AREA_MAX;
	if (len && bpf_probe_read_kernel(rec->area, len, area.end)) {
		rec->flags |= SOCKMETA_F_UNREADABLE;
		return;
	}
	if (end.size) {
		*(__u32 *)&rec->area[len] = bpf_htonl(SOCKMETA_ANCHOR(end.format));
		len += SOCKMETA_ANCHOR_SIZE;
	}
	rec->format = end.format;
	rec->area_len = len;
}

/*
 * Whether all that there is to know of a datagram can still be read off it when
 * recvmsg takes it from the queue: not where it came from, which an area without the
 * seal takes, and not what a sender on this host gave.
 */
static __always_inline int tells_itself(struct __sk_buff *ctx)
{
	struct ending end = {};
	struct area area;

	if ((ctx->tstamp & SOCKMETA_LOCAL_MARK) == SOCKMETA_LOCAL_MARK)
		return 0;
	find_area(kernel_skb(ctx), &area);
	return !area.len || (has_room(&area, area.len) &&
			     read_ending(area.end, area.len, &end) && end.sealed);
}

#endif

/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * sockmeta.h: how your own XDP and TC programs give metadata to the sockets
 * behind them. Needs nothing but libbpf's bpf_helpers.h; include vmlinux.h or
 * linux/bpf.h before it.
 *
 *	SEC("xdp")
 *	int producer(struct xdp_md *ctx)
 *	{
 *		__u32 service = 7;
 *
 *		sockmeta_put(ctx, 16, &service, sizeof(service));
 *		return XDP_PASS;
 *	}
 *
 * The area. Metadata lies in front of the packet (data_meta to data), as a row
 * of TLVs: u8 key, u8 len, len bytes of data, zeros up to a multiple of 4.
 * Values are in host byte order: they never leave the machine. Producers
 * prepend, so none has to parse what others wrote, and the first occurrence of
 * a key wins. The first sockmeta_put() for a packet also writes the anchor,
 * the 4 bytes { SOCKMETA_KEY_ANCHOR, 2, SOCKMETA_ANCHOR_MAGIC, format } that
 * end at the packet's first byte: by them the receiving side knows that the
 * area is where it is taken to be, whatever tunnels the packet came through.
 *
 * An area holds SOCKMETA_AREA_MAX bytes, the anchor included; the driver may
 * allow less, and Linux 6.1 allows 32. Drivers without support for metadata fail
 * the first put with -ENOTSUPP or -EACCES: the packet goes on without.
 *
 * Minimum kernel: 4.15 to write (bpf_xdp_adjust_meta), 6.1 to receive.
 */
#ifndef SOCKMETA_H
#define SOCKMETA_H

#include "sockmeta_abi.h"

/* Keys 1 to 15 have a meaning in every program (see the comments), 16 to 127
 * are yours, 128 to 254 are given out by name at run time, 0 is padding.
 */
enum sockmeta_key {
	SOCKMETA_KEY_PAD = 0,
	SOCKMETA_KEY_PACKET_ID = 1,	/* u64, CPU in the upper 16 bits, counts up on each */
	SOCKMETA_KEY_KTIME = 2,		/* u64, ns, CLOCK_MONOTONIC */
	SOCKMETA_KEY_SERVICE_ID = 3,	/* u32 */
	SOCKMETA_KEY_TRACE_ID = 4,	/* 16 bytes, as in W3C Trace Context */
	SOCKMETA_KEY_TUNNEL_ID = 5,	/* u64, VNI or GRE key */
	SOCKMETA_KEY_SENDER = 6,	/* TLVs that the sender, on this host, gave; receivers only */
	SOCKMETA_KEY_USER = 16,
	SOCKMETA_KEY_DYNAMIC = 128,
	SOCKMETA_KEY_ANCHOR = 255,
};

enum sockmeta_anchor {
	SOCKMETA_ANCHOR_SIZE = 4,
	SOCKMETA_ANCHOR_MAGIC = 0x5B,
};

/* The anchor as a number in network byte order. */
#define SOCKMETA_ANCHOR(format) \
	((__u32)SOCKMETA_KEY_ANCHOR << 24 | 2 << 16 | SOCKMETA_ANCHOR_MAGIC << 8 | (format))

/* Bytes that a value of len bytes takes in the area. */
#define SOCKMETA_TLV_SIZE(len) (((len) + 2 + 3) & ~3U)

static __always_inline int sockmeta_grow(struct xdp_md *ctx, __u32 size, __u8 format, void **p)
{
	int first = (void *)(long)ctx->data_meta + SOCKMETA_ANCHOR_SIZE > (void *)(long)ctx->data;
	__u8 *meta, *anchor;
	void *data;
	int err;

	err = bpf_xdp_adjust_meta(ctx, -(int)(size + (first ? SOCKMETA_ANCHOR_SIZE : 0)));
	if (err)
		return err;
	meta = (void *)(long)ctx->data_meta;
	data = (void *)(long)ctx->data;
	if ((void *)(meta + size) > data)
		return -14; /* EFAULT; the verifier wants the check */
	if (first) {
		anchor = meta + size;
		if ((void *)(anchor + SOCKMETA_ANCHOR_SIZE) > data)
			return -14;
		anchor[0] = SOCKMETA_KEY_ANCHOR;
		anchor[1] = 2;
		anchor[2] = SOCKMETA_ANCHOR_MAGIC;
		anchor[3] = format;
	}
	*p = meta;
	return 0;
}

/**
 * sockmeta_put - give the packet one more value
 * @key: 1 to 254
 * @ptr: the value
 * @len: its bytes, 0 to 246; a compile-time constant
 *
 * The value is the one that the application sees, also where an earlier
 * program gave one under the same key. Invalidates pointers into the packet,
 * as bpf_xdp_adjust_meta() does.
 *
 * Return: 0, -EINVAL or -EACCES where the area is full, for want of room or
 * because the kernel allows no more, or what bpf_xdp_adjust_meta() says where
 * the driver has no room for metadata.
 */
static __always_inline int sockmeta_put(struct xdp_md *ctx, __u8 key, const void *ptr, __u32 len)
{
	__u8 *tlv;
	int err;

	err = sockmeta_grow(ctx, SOCKMETA_TLV_SIZE(len), SOCKMETA_FORMAT_TLV, (void **)&tlv);
	if (err)
		return err;
	__builtin_memset(tlv, 0, SOCKMETA_TLV_SIZE(len));
	tlv[0] = key;
	tlv[1] = len;
	__builtin_memcpy(tlv + 2, ptr, len);
	return 0;
}

/**
 * sockmeta_put_area - give the packet an area in a format of your own
 * @format: SOCKMETA_FORMAT_STRUCT or SOCKMETA_FORMAT_RAW
 * @ptr: the bytes
 * @len: how many, a multiple of 4 from 4 to 248; a compile-time constant
 *
 * For packets that have no metadata yet.
 *
 * Return: as sockmeta_put(), and -EEXIST where there is an area already.
 */
static __always_inline int sockmeta_put_area(struct xdp_md *ctx, __u8 format, const void *ptr,
					     __u32 len)
{
	void *area;
	int err;

	if ((void *)(long)ctx->data_meta + SOCKMETA_ANCHOR_SIZE <= (void *)(long)ctx->data)
		return -17;
	err = sockmeta_grow(ctx, len, format, &area);
	if (err)
		return err;
	__builtin_memcpy(area, ptr, len);
	return 0;
}

/**
 * sockmeta_find - the place of a value
 * @data_meta: (void *)(long)ctx->data_meta, of a struct xdp_md or __sk_buff
 * @data: (void *)(long)ctx->data
 * @key: 1 to 254
 * @len: the value's bytes; a compile-time constant
 *
 * XDP and TC programs read what earlier programs gave, and may write over it.
 * A TC program that writes through the pointer changes what the application
 * sees; TC cannot add values, because only XDP can grow the area.
 *
 * Return: pointer to len bytes, aligned to 2, or NULL where the first
 * occurrence of the key has another length or there is none.
 */
static __always_inline void *sockmeta_find(void *data_meta, void *data, __u8 key, __u32 len)
{
	__u32 off = 0, i;

	for (i = 0; i < SOCKMETA_AREA_MAX / 4; i++) {
		__u8 *tlv;

		if (off > SOCKMETA_AREA_MAX - 4)
			break;
		tlv = data_meta + off;
		if ((void *)(tlv + 4) > data)
			break;
		if (tlv[0] == key) {
			if (tlv[1] != len || (void *)(tlv + 2 + len) > data)
				break;
			return tlv + 2;
		}
		off += SOCKMETA_TLV_SIZE(tlv[1]);
	}
	return 0;
}

#endif

/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * sockmeta.h: how your own XDP programs give metadata to the sockets
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
 * a key wins.
 *
 * The seal. The first sockmeta_put() for a packet also writes what the area ends
 * in: a struct sockmeta_seal with the host's secret, and a gap. The receiving side
 * takes an area for one if, and only if, it ends in the secret: bytes that look
 * like an area may be a remote host's, as what lies in front of a packet that came
 * through a tunnel are the tunnel's headers. The gap is for the kernel: it writes
 * the Ethernet header of a packet that it routes 16 bytes at a time, and with it over
 * the last 2 bytes of the area. VLAN headers take more, and the seal with them.
 *
 * The secret. It is in the map sockmeta_secret, which the loader of your program has
 * to give it: with Go, bpf.PrepareProducer(spec) in front of LoadAndAssign(); with
 * libbpf, this in front of the #include, which takes the map that sockmeta pinned:
 *
 *	#define SOCKMETA_PINNING LIBBPF_PIN_BY_NAME
 *
 * It is not pinned by default, as loaders fail where there is no /sys/fs/bpf. Without
 * the secret all works as well, but areas end in an anchor only, the 4 bytes
 * { SOCKMETA_KEY_ANCHOR, 2, SOCKMETA_ANCHOR_MAGIC, format }, as those of older
 * versions of this file do: receivers see them flagged (SOCKMETA_F_UNANCHORED), and
 * not at all on devices whose packets may have come through a tunnel. Who can read
 * the map can make up metadata.
 *
 * An area holds SOCKMETA_AREA_MAX bytes, the seal and its gap included; the driver may
 * allow less, and Linux 6.1 allows 32, so that there is no gap there. Drivers without
 * support for metadata fail the first put with -ENOTSUPP or -EACCES: the packet goes on
 * without.
 *
 * Minimum kernel: 4.15 to write (bpf_xdp_adjust_meta), 6.1 to receive.
 */
#ifndef SOCKMETA_H
#define SOCKMETA_H

#include "sockmeta_abi.h"

/*
 * What ends the area: in front of a packet the seal and its gap, in a record, as
 * receivers get it, the anchor, which has no secret.
 */
enum sockmeta_anchor {
	SOCKMETA_ANCHOR_SIZE = 4,
	SOCKMETA_ANCHOR_MAGIC = 0x5B,
	SOCKMETA_SEAL_SIZE = 12,
	SOCKMETA_SEAL_MAGIC = 0x5C,
	SOCKMETA_SEAL_GAP = 4,
};

/* The anchor as a number in network byte order. */
#define SOCKMETA_ANCHOR(format) \
	((__u32)SOCKMETA_KEY_ANCHOR << 24 | 2 << 16 | SOCKMETA_ANCHOR_MAGIC << 8 | (format))

/* A TLV, as the anchor is, so that it can be skipped. */
struct sockmeta_seal {
	__u8 key;		/* SOCKMETA_KEY_ANCHOR */
	__u8 len;		/* of what follows, the gap included */
	__u8 magic;		/* SOCKMETA_SEAL_MAGIC */
	__u8 format;
	__u32 secret[2];
};

/* What is the same for all producers and receivers of a host until it boots. */
struct sockmeta_host {
	__u32 secret[2];	/* random, neither is 0; 0: not given */
	__u32 gap;		/* not 0: seals have a gap behind them */
	__u32 reserved;
};

#ifndef SOCKMETA_PINNING
#define SOCKMETA_PINNING LIBBPF_PIN_NONE
#endif

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__uint(pinning, SOCKMETA_PINNING);
	__type(key, __u32);
	__type(value, struct sockmeta_host);
} sockmeta_secret SEC(".maps");

/* Bytes that a value of len bytes takes in the area. */
#define SOCKMETA_TLV_SIZE(len) (((len) + 2 + 3) & ~3U)

/* The host's record, NULL where the program was not given it. */
static __always_inline const struct sockmeta_host *sockmeta_this_host(void)
{
	const struct sockmeta_host *host;
	__u32 zero = 0;

	host = bpf_map_lookup_elem(&sockmeta_secret, &zero);
	return host && host->secret[0] ? host : 0;
}

static __always_inline int sockmeta_end_area(__u8 *end, void *data, __u8 format,
					     const struct sockmeta_host *host)
{
	struct sockmeta_seal seal = {
		.key = SOCKMETA_KEY_ANCHOR, .len = 2, .magic = SOCKMETA_ANCHOR_MAGIC, .format = format,
	};

	if (!host) {
		if ((void *)(end + SOCKMETA_ANCHOR_SIZE) > data)
			return -14;
		__builtin_memcpy(end, &seal, SOCKMETA_ANCHOR_SIZE);
		return 0;
	}
	seal.len = SOCKMETA_SEAL_SIZE - 2 + (host->gap ? SOCKMETA_SEAL_GAP : 0);
	seal.magic = SOCKMETA_SEAL_MAGIC;
	seal.secret[0] = host->secret[0];
	seal.secret[1] = host->secret[1];
	if ((void *)(end + sizeof(seal)) > data)
		return -14;
	__builtin_memcpy(end, &seal, sizeof(seal));
	if (!host->gap)
		return 0;
	end += sizeof(seal);
	if ((void *)(end + SOCKMETA_SEAL_GAP) > data)
		return -14;
	__builtin_memset(end, 0, SOCKMETA_SEAL_GAP);
	return 0;
}

static __always_inline int sockmeta_grow(struct xdp_md *ctx, __u32 size, __u8 format, void **p)
{
	int first = (void *)(long)ctx->data_meta + SOCKMETA_ANCHOR_SIZE > (void *)(long)ctx->data;
	const struct sockmeta_host *host = 0;
	__u32 end = 0;
	__u8 *meta;
	void *data;
	int err;

	if (first) {
		host = sockmeta_this_host();
		end = SOCKMETA_ANCHOR_SIZE;
		if (host)
			end = SOCKMETA_SEAL_SIZE + (host->gap ? SOCKMETA_SEAL_GAP : 0);
	}
	err = bpf_xdp_adjust_meta(ctx, -(int)(size + end));
	if (err)
		return err;
	meta = (void *)(long)ctx->data_meta;
	data = (void *)(long)ctx->data;
	if ((void *)(meta + size) > data)
		return -14; /* EFAULT; the verifier wants the check */
	*p = meta;
	return first ? sockmeta_end_area(meta + size, data, format, host) : 0;
}

/**
 * sockmeta_put - give the packet one more value
 * @key: 1 to 254
 * @ptr: the value
 * @len: its bytes, 0 to 234; a compile-time constant
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
 * @len: how many, a multiple of 4 from 4 to 236; a compile-time constant
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

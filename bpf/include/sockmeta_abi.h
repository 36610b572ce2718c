/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * What crosses the border between sockmeta's BPF programs and user space: the
 * record, the receive slot and the socket options at level SOL_BPF. The Go
 * types are generated from this header; C programs may include it as it is.
 *
 * All fields are in host byte order. The record only ever grows: hdr_len says
 * where the producer's area starts, so a reader that knows a shorter or a
 * longer fixed part still finds both.
 */
#ifndef SOCKMETA_ABI_H
#define SOCKMETA_ABI_H

#ifndef SOL_BPF
#define SOL_BPF 0xEB9F
#endif

enum sockmeta_const {
	/* Programs answer requests of their own ABI. */
	SOCKMETA_ABI = 1,
	SOCKMETA_RECORD_VERSION = 1,
	/* Most bytes that a driver may leave in front of a packet:
	 * xdp_metalen_invalid() in include/net/xdp.h allows 252 and wants a
	 * multiple of 4.
	 */
	SOCKMETA_AREA_MAX = 252,
	/* Bits of a slot's index, in handles and options. */
	SOCKMETA_INDEX_BITS = 24,
};

/* The area's format: the last byte of its anchor, see sockmeta.h. */
enum sockmeta_format {
	SOCKMETA_FORMAT_TLV = 0,
	SOCKMETA_FORMAT_STRUCT = 1,
	SOCKMETA_FORMAT_RAW = 2,
};

/* sockmeta_record.valid */
enum sockmeta_valid {
	SOCKMETA_VALID_TSTAMP = 1 << 0,
	SOCKMETA_VALID_HWTSTAMP = 1 << 1,
	SOCKMETA_VALID_MARK = 1 << 2,
	SOCKMETA_VALID_PRIORITY = 1 << 3,
	SOCKMETA_VALID_HASH = 1 << 4,
	SOCKMETA_VALID_VLAN = 1 << 5,
	SOCKMETA_VALID_IFINDEX = 1 << 6,
	SOCKMETA_VALID_NAPI_ID = 1 << 7,
	SOCKMETA_VALID_CPU = 1 << 8,
};

/* sockmeta_record.flags */
enum sockmeta_flag {
	/* The area does not end in an anchor: another producer's format. */
	SOCKMETA_F_UNANCHORED = 1 << 0,
	/* An area was there, but the packet was decapsulated after it was
	 * written, so that its place is no longer known.
	 */
	SOCKMETA_F_DECAPSULATED = 1 << 1,
	/* An area was there and could not be read. */
	SOCKMETA_F_UNREADABLE = 1 << 2,
	/* One record stands for several segments that GRO merged. */
	SOCKMETA_F_AGGREGATE = 1 << 3,
	/* TCP: of the SYN-ACK that answered our SYN. */
	SOCKMETA_F_SYNACK = 1 << 4,
	/* TCP: the SYN's record was lost (SYN cookie, table full): of the
	 * segment that completed the handshake.
	 */
	SOCKMETA_F_HANDSHAKE_ACK = 1 << 5,
	/* TCP: more than one segment brought these bytes. */
	SOCKMETA_F_REPEATED = 1 << 6,
	/* The area did not fit into what carried the record and was cut. */
	SOCKMETA_F_TRUNCATED = 1 << 7,
	/* This kernel gives programs no way to the producer's bytes. */
	SOCKMETA_F_NO_AREA_ACCESS = 1 << 8,
};

struct sockmeta_record {
	__u8 version;
	__u8 hdr_len;		/* bytes up to area, a multiple of 4 */
	__u8 area_len;		/* 0 to SOCKMETA_AREA_MAX */
	__u8 format;		/* enum sockmeta_format */
	__u16 valid;		/* enum sockmeta_valid */
	__u16 flags;		/* enum sockmeta_flag */
	__u64 tstamp;		/* ns, CLOCK_REALTIME, taken on reception */
	__u64 hwtstamp;		/* ns, the NIC's clock */
	__u32 mark;
	__u32 priority;
	__u32 hash;
	__u32 ifindex;
	__u32 napi_id;
	__u32 cpu;
	__u16 vlan_tci;
	__u16 vlan_proto;	/* network byte order, as on the wire */
	__u32 reserved;
	__u8 area[256];		/* SOCKMETA_AREA_MAX and 4 spare */
};

/*
 * A handle is what travels in skb->tstamp: bit 63 clear (ktime_t is signed),
 * bit 62 set (clear in real timestamps until the year 2116), then the slot's
 * generation and its index.
 */
#define SOCKMETA_HANDLE_BIT (1ULL << 62)
#define SOCKMETA_INDEX_MASK ((1U << SOCKMETA_INDEX_BITS) - 1)

/* sockmeta_slot.seq while a program writes the slot; never a handle. */
#define SOCKMETA_BUSY 1ULL

struct sockmeta_slot {
	__u64 seq;		/* the handle of what is in it, or SOCKMETA_BUSY */
	__u64 owner;		/* id of the socket that it was filled for */
	struct sockmeta_record rec;
	/* What the application asked of SO_TIMESTAMPING (SOF_TIMESTAMPING_*),
	 * without what sockmeta added.
	 */
	__u32 tsflags;
	__u32 reserved[13];
} __attribute__((aligned(64)));

/* Socket options at level SOL_BPF. */
enum sockmeta_opt {
	SOCKMETA_OPT_ENABLE = 1,	/* set: struct sockmeta_enable */
	SOCKMETA_OPT_INFO = 2,		/* get: struct sockmeta_info */
	SOCKMETA_OPT_TCP_READ = 3,	/* get: struct sockmeta_record */
	SOCKMETA_OPT_TCP_OPENING = 4,
	SOCKMETA_OPT_TCP_LATEST = 5,
	/* get, with a slot's index in the low 24 bits: struct sockmeta_answer */
	SOCKMETA_OPT_SLOT = 1 << 24,
};

struct sockmeta_enable {
	__u32 abi;
	__u32 tsflags;		/* what the application itself asked of SO_TIMESTAMPING */
};

struct sockmeta_info {
	__u32 abi;
	__u32 slots_per_cpu;	/* a power of two */
	__u64 instance;		/* random, tells attachments apart */
	__u32 rx_map_id;	/* bpf_map_info.id of the slots */
	__u32 slots;		/* in all */
};

struct sockmeta_answer {
	__u64 seq;		/* handle that was found in the slot */
	__u32 tsflags;
	__u32 reserved;
	struct sockmeta_record rec;
};

#endif

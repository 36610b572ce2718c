/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * What crosses the border between sockmeta's BPF programs and user space: the
 * record, the slots of both directions and the socket options at level
 * SOL_BPF. The Go types are generated from this header; C programs may include
 * it as it is.
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
	SOCKMETA_ABI = 4,
	SOCKMETA_RECORD_VERSION = 1,
	/* Most bytes that a driver may leave in front of a packet:
	 * xdp_metalen_invalid() in include/net/xdp.h allows 252 and wants a
	 * multiple of 4.
	 */
	SOCKMETA_AREA_MAX = 252,
	/* Bits of a slot's index, in handles and options. */
	SOCKMETA_INDEX_BITS = 24,
	/* The same for transmit slots, see struct sockmeta_tx_slot. */
	SOCKMETA_TX_INDEX_BITS = 12,
	SOCKMETA_TX_USE_BITS = 10,
	SOCKMETA_TX_PROC_IDS = 1024,
	/* Processes that can send by handle on one socket. */
	SOCKMETA_TX_PROCS = 8,
	/* Tasks that send on one socket whose records the kernel keeps apart. */
	SOCKMETA_FLIGHTS = 16,
	/* Users whose sockets are counted. */
	SOCKMETA_USERS = 2048,
};

/* Type of the control message with a record, at level SOL_BPF. */
#define SOCKMETA_SCM_RECORD 1

/* The area's format: the last byte of its anchor, see sockmeta.h. What sealed an area
 * on the packet is no part of the record, which has an anchor in its place.
 */
enum sockmeta_format {
	SOCKMETA_FORMAT_TLV = 0,
	SOCKMETA_FORMAT_STRUCT = 1,
	SOCKMETA_FORMAT_RAW = 2,
};

/* Keys 1 to 15 have a meaning in every program (see the comments), 16 to 127
 * are yours, 128 to 254 are kept for keys by name, 0 is padding.
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
	SOCKMETA_VALID_LAUNCH = 1 << 9,
};

/* sockmeta_record.flags */
enum sockmeta_flag {
	/* The area was not sealed by this host's secret: it is of a program that does
	 * not know it, or made up.
	 */
	SOCKMETA_F_UNANCHORED = 1 << 0,
	/* An area may have been there, but the packet may have been decapsulated after
	 * it was written, and it was not found.
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
	/* TCP: of more than one segment that had these bytes, any may have
	 * brought them. Comes with SOCKMETA_F_UNPROVEN.
	 */
	SOCKMETA_F_REPEATED = 1 << 6,
	/* The area did not fit into what carried the record and was cut. */
	SOCKMETA_F_TRUNCATED = 1 << 7,
	/* TCP: this is the most likely segment, but it cannot be shown that TCP
	 * took it and no other. Treat the record as a hint.
	 */
	SOCKMETA_F_UNPROVEN = 1 << 8,
	/* The sender, on this host, gave metadata that was lost on the way:
	 * newer packets took its place, or there was no room for it here.
	 */
	SOCKMETA_F_SENDER_LOST = 1 << 9,
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
	__u64 launch;		/* ns, the clock of SO_TXTIME; transmission only */
	__u8 area[256];		/* SOCKMETA_AREA_MAX and 4 spare */
};

/*
 * A handle is what travels in skb->tstamp: bit 63 clear (ktime_t is signed),
 * bit 62 set (clear in real timestamps until the year 2116), bit 61 clear (the
 * programs use it among themselves), then when the slot was filled and its index.
 */
#define SOCKMETA_HANDLE_BIT (1ULL << 62)
#define SOCKMETA_INDEX_MASK ((1U << SOCKMETA_INDEX_BITS) - 1)

/* sockmeta_slot.seq while a program writes the slot; never a handle. */
#define SOCKMETA_BUSY 1ULL

struct sockmeta_slot {
	__u64 seq;		/* the handle of what is in it, or SOCKMETA_BUSY */
	__u64 owner;		/* id of the socket that it was filled for */
	/* What the application asked of SO_TIMESTAMPING (SOF_TIMESTAMPING_*),
	 * without what sockmeta added. In front of the record, for a slot with
	 * a short area to take two cache lines.
	 */
	__u32 tsflags;
	__u32 reserved;
	struct sockmeta_record rec;
	__u8 spare[32];
} __attribute__((aligned(64)));

/*
 * A datagram carries its record down as the number of a transmit slot, which
 * lies in the memory of the process that sends: SCM_TXTIME takes the number
 * into skb->tstamp, and the egress program reads the slot, in the task that
 * sends. Numbers are below SOCKMETA_TX_END: as a time, by CLOCK_MONOTONIC, they
 * are in the past, so that a packet leaves at once where no program is attached
 * any more. From the top: which process it is (struct sockmeta_tx_info), how
 * often the slot was used, its index.
 */
#define SOCKMETA_TX_END (1ULL << 32)
#define SOCKMETA_TX_PROC_SHIFT (SOCKMETA_TX_INDEX_BITS + SOCKMETA_TX_USE_BITS)

/* What of a record concerns those that are sent. */
struct sockmeta_sent {
	__u8 version;		/* SOCKMETA_RECORD_VERSION */
	__u8 reserved;
	__u8 area_len;
	__u8 format;
	__u16 valid;
	__u16 flags;
	__u32 mark;
	__u32 priority;
	__u64 launch;
	__u8 area[256];
};

struct sockmeta_tx_slot {
	__u64 handle;		/* of what is in it */
	__u64 socket;		/* struct sockmeta_tx_info.socket */
	struct sockmeta_sent rec;
} __attribute__((aligned(64)));

/* Socket options at level SOL_BPF. */
enum sockmeta_opt {
	SOCKMETA_OPT_ENABLE = 1,	/* set: struct sockmeta_enable */
	SOCKMETA_OPT_INFO = 2,		/* get: struct sockmeta_info */
	SOCKMETA_OPT_TCP_READ = 3,	/* get: struct sockmeta_record */
	SOCKMETA_OPT_TCP_OPENING = 4,
	SOCKMETA_OPT_TCP_LATEST = 5,
	/* set, TCP: struct sockmeta_record, as long as hdr_len and area_len
	 * say, for every packet from now on; no bytes: none any more
	 */
	SOCKMETA_OPT_TX_RECORD = 6,
	/* set, UDP: struct sockmeta_tx_slots */
	SOCKMETA_OPT_TX_SLOTS = 7,
	/* get: struct sockmeta_tx_info */
	SOCKMETA_OPT_TX_INFO = 8,
	/* get, with a slot's index in the low 24 bits: struct sockmeta_answer */
	SOCKMETA_OPT_SLOT = 1 << 24,
};

/* sockmeta_enable.flags */
enum sockmeta_enable_flag {
	/*
	 * UDP: each datagram's record comes as a control message of recvmsg,
	 * {SOL_BPF, SOCKMETA_SCM_RECORD}, as long as its hdr_len and area_len say;
	 * MSG_CTRUNC is set where there was no room for it. Needs
	 * SOCKMETA_FEATURE_NATIVE, else the option fails with EOPNOTSUPP.
	 */
	SOCKMETA_ENABLE_CMSG = 1 << 0,
	/* The socket stays as it is: only the answer is wanted. */
	SOCKMETA_ENABLE_ASK = 1 << 1,
};

/*
 * A socket belongs to one attachment, also where several are attached to its cgroup
 * and those above: the first that answers has it. Who opts in again asks whose it is
 * (SOCKMETA_OPT_INFO), and names that.
 *
 * The option fails with ENFILE where the attachment has as many sockets as it may
 * have, and with EDQUOT where the user has.
 */
struct sockmeta_enable {
	__u32 abi;
	__u32 tsflags;		/* what the application itself asked of SO_TIMESTAMPING */
	__u32 flags;		/* enum sockmeta_enable_flag; may be left out, like the next */
	__u32 reserved;
	__u64 instance;		/* struct sockmeta_info.instance: others do not answer; 0: any */
};

/* sockmeta_info.features */
enum sockmeta_feature {
	/* Raw control messages are read, see tracing.bpf.c. */
	SOCKMETA_FEATURE_TRACING = 1 << 0,
	/* The same, and records are put into them on reception (native.bpf.c). */
	SOCKMETA_FEATURE_NATIVE = 1 << 1,
	/* recvmsg makes sure that the buffer for control messages can be written
	 * before it waits, so that records are not lost where a page is not there;
	 * recvmmsg for the first of its messages.
	 */
	SOCKMETA_FEATURE_FAULT_IN = 1 << 2,
};

struct sockmeta_info {
	__u32 abi;
	__u32 slots_per_cpu;	/* a power of two */
	__u64 instance;		/* random, tells attachments apart */
	__u32 rx_map_id;	/* bpf_map_info.id of the slots */
	__u32 slots;		/* in all */
	__u32 features;		/* enum sockmeta_feature */
	__u32 reserved;
};

/* The transmit slots of the calling process. */
struct sockmeta_tx_slots {
	__u32 abi;
	__u32 count;		/* up to 1 << SOCKMETA_TX_INDEX_BITS */
	__u64 addr;		/* of the first struct sockmeta_tx_slot */
};

/* What senders may ask for. */
struct sockmeta_policy {
	__u32 mark_mask;	/* bits of the mark that they may set */
	__u32 priority_max;
	__u32 launch;		/* not 0: launch times */
	__u32 crosses;		/* not 0: there are keys in local */
	__u64 local[4];		/* bit map of the keys that receivers on this host see */
};

/* How many sockets may have storage, see bounds.h. */
struct sockmeta_bounds {
	__u32 sockets;
	__u32 per_user;
};

struct sockmeta_tx_info {
	__u64 socket;		/* the socket's number */
	__u32 proc;		/* of the calling process, on this socket; 0: has no slots */
	__u32 clock;		/* of SO_TXTIME, and 1; 0: it is not set */
	struct sockmeta_policy policy;
};

/* What became of the records that were sent, and of sockets, since the programs were
 * attached.
 */
struct sockmeta_counts {
	__u64 sent;		/* packets that left with a record */
	__u64 stale;		/* handles of slots with another record by now, or none */
	__u64 foreign;		/* handles of other sockets or processes */
	__u64 malformed;	/* records that are none */
	__u64 busy;		/* no place: SOCKMETA_FLIGHTS tasks on the socket at once, or no memory */
	__u64 mark_refused;	/* by the policy; the packet left without */
	__u64 priority_refused;
	__u64 launch_refused;
	__u64 local_keys;	/* values that the policy kept from receivers on this host */
	__u64 local;		/* packets that took a record to a receiver on this host */
	__u64 full;		/* refusals of sockets: the attachment had too many, */
	__u64 user_full;	/* or their user */
};

struct sockmeta_answer {
	__u64 seq;		/* handle that was found in the slot */
	__u32 tsflags;
	__u32 reserved;
	struct sockmeta_record rec;
};

#endif

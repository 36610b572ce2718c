/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * The state that the programs share. Each object declares all of it; the
 * loader makes each map once (bpf/load_linux.go).
 */
#ifndef SOCKMETA_MAPS_H
#define SOCKMETA_MAPS_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "../include/sockmeta_tx.h"

#define RECORD_HDR __builtin_offsetof(struct sockmeta_record, area)

/* ns of CLOCK_MONOTONIC: handles tell no shorter times apart. */
#define UNIT 4096ULL

/* A socket that opted in. Cloned into the sockets that a listener accepts. */
struct sockmeta_sk {
	__u64 id;		/* never given twice by one attachment */
	__u32 protocol;		/* IPPROTO_UDP or IPPROTO_TCP */
	__u32 tsflags;		/* see struct sockmeta_slot */
	__u32 transmits;	/* has had a record to send */
	__u32 flags;		/* enum sockmeta_enable_flag */
	__u64 since;		/* UNIT in which it opted in */
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct sockmeta_sk);
} sockmeta_sks SEC(".maps");

/* The receive slots, slots_per_cpu for each CPU; max_entries is set by the
 * loader. User space maps it read-only.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sockmeta_slot);
} sockmeta_rx SEC(".maps");

/* Slots that this CPU has used so far. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} sockmeta_cursor SEC(".maps");

struct sockmeta_instance {
	struct sockmeta_info info;
	struct sockmeta_policy policy;
	struct sockmeta_bounds bounds;
	__u64 last_id;		/* of struct sockmeta_sk */
	__u64 last_page;	/* number of struct sockmeta_page */
	__u64 local_first;	/* numbers of local slots begin here, */
	__u64 local_cursor;	/* and this is the next one */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sockmeta_instance);
} sockmeta_inst SEC(".maps");

/* The ids of an attachment's links, in the order in which they were attached, 0 behind
 * the last one. User space writes it once, for whoever joins; programs do not use it.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 32);
	__type(key, __u32);
	__type(value, __u32);
} sockmeta_links SEC(".maps");

/* The record of one TCP segment. seq is 0 (empty), SOCKMETA_BUSY, or grows
 * with each use; in the ring it is FIRST_SEQ and the segment's number.
 */
#define FIRST_SEQ 2

struct sockmeta_cell {
	__u64 seq;
	__u64 skb;		/* its address, to compare with; may be gone */
	__u32 start;		/* sequence numbers: first byte that was new, */
	__u32 end;		/* and the one behind the last, FIN included */
	__u32 doubtful;		/* TCP may have dropped it, as far as we could see */
	__u32 pad;
	struct sockmeta_record rec;
};

#define SOCKMETA_TCP_RING 16

/* Behind a record's area, for the verifier: it does not see that the lengths of
 * the area's two parts (local.h) belong together.
 */
#define SOCKMETA_SPARE 32

/* A set of sequence numbers, from its low half up to, not including, its high
 * half. One word, so that it changes at once.
 */
typedef __u64 sockmeta_range;

struct sockmeta_tcp {
	__u32 unread;		/* copied_seq - 1 while nothing has been read */
	__u32 settled;		/* late: from here on each segment was seen */
	__u8 dialed;		/* by this side */
	__u8 late;		/* opted in when the connection was open already */
	__u8 newer;		/* what TCP ought to drop came after latest */
	__u8 all_lost;		/* lost was too busy to tell which */
	__u8 diverted;		/* what was read may be other than TCP's own */
	__u8 has_read;		/* the application, something */
	__u16 opening_flags;	/* enum sockmeta_flag */
	__u64 established;
	__u64 opened;		/* number of the right record in opening; 0: none */
	__u64 head;		/* of ring */
	__u64 latest;		/* head of the newest segment; 0: in control */
	sockmeta_range lost;	/* bytes whose segments are not all in the log */
	sockmeta_range fins;	/* numbers of the FINs that TCP may have taken, */
	sockmeta_range urgent;	/* and of the urgent bytes */
	struct sockmeta_cell opening;
	struct sockmeta_cell control;	/* of the newest without new bytes */
	struct sockmeta_cell ring[SOCKMETA_TCP_RING];
	__u8 spare[SOCKMETA_SPARE];
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct sockmeta_tcp);
} sockmeta_tcps SEC(".maps");

/* Where the records of segments went that wait unread while newer ones need their
 * cells: into receive slots, which newer packets may take. Of each there is an entry in
 * a page. The pages are all connections' and used in turn.
 */
struct sockmeta_spilled {
	__u64 seq;		/* 0, SOCKMETA_BUSY, or the slot's handle and SPILLED_DOUBTFUL */
	__u64 owner;		/* struct sockmeta_sk.id */
	__u32 start, end;	/* as in the cell */
};

/* No handle has it (SOCKMETA_HANDLE_BIT). */
#define SPILLED_DOUBTFUL (1ULL << 63)

#define SOCKMETA_PAGE 128U

struct sockmeta_page {
	__u64 number;		/* counts up with each use */
	struct sockmeta_spilled at[SOCKMETA_PAGE];
};

#define SOCKMETA_PAGES 256U

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SOCKMETA_PAGES);
	__type(key, __u32);
	__type(value, struct sockmeta_page);
} sockmeta_pages SEC(".maps");

/* A page of a connection, and what its entries have. */
struct sockmeta_page_ref {
	__u64 number;		/* 0: none */
	sockmeta_range range;
};

#define SOCKMETA_PAGE_REFS 64

struct sockmeta_spills {
	__u64 head;		/* entries so far */
	struct sockmeta_page_ref pages[SOCKMETA_PAGE_REFS];
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct sockmeta_spills);
} sockmeta_spill SEC(".maps");

/* Handshakes under way: what the listener saw before the child existed. Another listener
 * of the same port may complete one (net.ipv4.tcp_migrate_req).
 */
struct sockmeta_flow {
	__u64 realm;		/* cookie of the network namespace; local.h has its own */
	__u32 remote[4];	/* network byte order, IPv4 as ::ffff:a.b.c.d */
	__u32 local[4];
	__u16 remote_port;	/* host byte order */
	__u16 local_port;
	__u32 pad;
};

struct sockmeta_handshake {
	struct sockmeta_cell syn;	/* seq 0: never seen, or evicted */
	struct sockmeta_cell ack;
	sockmeta_range lost;	/* bytes that the child waits for, beside those of ack */
	__u32 syns;		/* that came: syn may be one of several */
	__u8 repeated;		/* so it may if this says so */
	__u8 reset;		/* a RST came after syn */
	__u8 all_lost;		/* as in struct sockmeta_tcp */
	__u8 cookie;		/* ack came where no SYN was being answered */
	__u8 spare[SOCKMETA_SPARE];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct sockmeta_flow);
	__type(value, struct sockmeta_handshake);
} sockmeta_handshakes SEC(".maps");

/* Summed up by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sockmeta_counts);
} sockmeta_count SEC(".maps");

/* What a raw control message gave a task that is in sendmsg: see raw.h. */
struct sockmeta_raw {
	__u64 sk;		/* address; 0: the message holds no record */
	__u64 first;		/* only the first of two programs has run yet */
	struct sockmeta_record rec;
	__u8 payload[384];	/* of the control message */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, __u64);	/* this_task() */
	__type(value, struct sockmeta_raw);
} sockmeta_raws SEC(".maps");

/* Devices whose packets take records to receivers on this host. */
struct sockmeta_local_dev {
	__u64 netns;		/* cookie */
	__u32 ifindex;
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct sockmeta_local_dev);
	__type(value, __u32);	/* ifindex of the other end; 0: loopback, the same */
} sockmeta_local_devs SEC(".maps");

/*
 * Records on their way between sockets of this host, for local.bpf.c. The number
 * in skb->tstamp says which one it is: no two packets ever have the same. It
 * counts up from half of the time at which the programs were attached
 * (CLOCK_MONOTONIC, ns). Packets that take more than 2 ns each keep it below half
 * of the present time. So it is in the past, as the time that the devices take it
 * for; delivery times that TCP sets are above; and whatever is attached later
 * begins above it.
 */
struct sockmeta_local {
	__u64 seq;		/* the number, or SOCKMETA_BUSY */
	struct sockmeta_flow flow;
	struct sockmeta_local_dev dev;	/* that the packet left by */
	struct sockmeta_local_dev arrived;	/* that it came to; netns 0: none yet */
	__u64 skb;		/* the packet as it left: its address, */
	__u32 bytes;		/* length from the IP header on, */
	__u32 segs;		/* and segments, as gso_segs has them */
	__u32 other_end;	/* of dev */
	__u32 len;
	__u32 taken;		/* segments that have arrived; more are replays */
	__u8 area[256];
};

#define SOCKMETA_LOCAL_SLOTS 1024U

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SOCKMETA_LOCAL_SLOTS);
	__type(key, __u32);
	__type(value, struct sockmeta_local);
} sockmeta_locals SEC(".maps");

/* When a number was last given to a flow, by the flow's hash: ns, coarse clock. */
#define SOCKMETA_GIVEN 8192U

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SOCKMETA_GIVEN);
	__type(key, __u32);
	__type(value, __u64);
} sockmeta_given SEC(".maps");

/* In skb->tstamp from TC ingress to cgroup ingress, with the number below; alone
 * it says that there was one, which was lost.
 */
#define SOCKMETA_LOCAL_MARK (3ULL << 61)

/* What skb->tstamp has in place of a time: a slot's handle, */
static __always_inline int is_handle(__u64 tstamp)
{
	return (tstamp & SOCKMETA_LOCAL_MARK) == SOCKMETA_HANDLE_BIT;
}

/* or a local number with its mark. */
static __always_inline int is_local_number(__u64 tstamp)
{
	return (tstamp & SOCKMETA_LOCAL_MARK) == SOCKMETA_LOCAL_MARK;
}

static __always_inline struct sockmeta_instance *this_instance(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&sockmeta_inst, &zero);
}

/* bpf_get_current_pid_tgid(), which cgroup programs lack on Linux 6.1. */
static __always_inline __u64 this_task(void)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task_btf();

	return (__u64)task->tgid << 32 | (__u32)task->pid;
}

#define count(what)							\
	do {								\
		__u32 zero_ = 0;					\
		struct sockmeta_counts *counts_;			\
									\
		counts_ = bpf_map_lookup_elem(&sockmeta_count, &zero_);	\
		if (counts_)						\
			__sync_fetch_and_add(&counts_->what, 1);	\
	} while (0)

#endif

/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * The state that the programs share. Each object declares all of it; the
 * loader makes each map once (bpf/load_linux.go).
 */
#ifndef SOCKMETA_MAPS_H
#define SOCKMETA_MAPS_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "../include/sockmeta_abi.h"

/* A socket that opted in. Cloned into the sockets that a listener accepts. */
struct sockmeta_sk {
	__u64 id;		/* never given twice by one attachment */
	__u32 protocol;		/* IPPROTO_UDP or IPPROTO_TCP */
	__u32 tsflags;		/* see struct sockmeta_slot */
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
	__u64 last_id;		/* of struct sockmeta_sk */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sockmeta_instance);
} sockmeta_inst SEC(".maps");

/* The record of one TCP segment. seq is 0 (empty), SOCKMETA_BUSY, or grows
 * with each use; in the ring it is FIRST_SEQ and the segment's number.
 */
#define FIRST_SEQ 2

struct sockmeta_cell {
	__u64 seq;
	__u32 start;		/* sequence numbers: first byte, */
	__u32 end;		/* and the one behind the last */
	struct sockmeta_record rec;
};

#define SOCKMETA_TCP_RING 16

struct sockmeta_tcp {
	__u32 unread;		/* copied_seq - 1 while nothing has been read */
	__u32 fin;		/* the peer's FIN, when has_fin is set */
	__u8 established;
	__u8 has_fin;
	__u8 pad[6];
	__u64 head;		/* of ring */
	__u64 latest;		/* head of the newest segment; 0: in control */
	struct sockmeta_cell opening;
	struct sockmeta_cell control;	/* of the newest without payload */
	struct sockmeta_cell ring[SOCKMETA_TCP_RING];
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct sockmeta_tcp);
} sockmeta_tcps SEC(".maps");

/* Handshakes under way: what the listener saw before the child existed. */
struct sockmeta_flow {
	__u64 listener;		/* struct sockmeta_sk.id: tells namespaces apart too */
	__u32 remote[4];	/* network byte order, IPv4 as ::ffff:a.b.c.d */
	__u32 local[4];
	__u16 remote_port;	/* host byte order */
	__u16 local_port;
	__u32 pad;
};

struct sockmeta_handshake {
	struct sockmeta_cell syn;	/* seq 0: never seen, or evicted */
	struct sockmeta_cell ack;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct sockmeta_flow);
	__type(value, struct sockmeta_handshake);
} sockmeta_handshakes SEC(".maps");

#endif

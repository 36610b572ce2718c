/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * sockmeta_tx.h: how your own cgroup_skb/egress and TC egress programs read the
 * metadata that the application sent with a packet. Needs libbpf's
 * bpf_helpers.h; include vmlinux.h or linux/bpf.h before it.
 *
 *	SEC("tc")
 *	int consumer(struct __sk_buff *skb)
 *	{
 *		__u32 zone;
 *
 *		if (!sockmeta_tx_get(skb, 16, &zone, sizeof(zone)))
 *			skb->priority = zone;
 *		return TC_ACT_OK;
 *	}
 *
 * The two maps below have to be those of the attachment: let the loader replace
 * them (Attachment.Maps in Go), or pin them there ("sockmeta attach
 * -pin DIR" and bpf_map__set_pin_path).
 *
 * Where to read. At cgroup egress: in a program that runs after sockmeta's,
 * which is any that was attached to the same cgroup later or to one above. At
 * TC egress: of the device by which the packet leaves the IP layer, and of
 * those below it (a VLAN's parent, what carries a tunnel).
 *
 * Exactness. A datagram is known by its skb, and sockmeta's program takes the
 * skb's mark off whenever one of the socket's packets comes without a record. So
 * a record is never another packet's. There are five cases in which there is
 * none although one was sent:
 *  - fragments, which are new skbs;
 *  - packets that a tunnel of another protocol copied;
 *  - segments that software cut from a train (UDP_SEGMENT);
 *  - of sockets that have sent trains, single datagrams, until one was sent at a time
 *    at which no other packet of the socket was under way;
 *  - datagrams that waited on the way from the one program to the other while their
 *    task sent another, for a second, or while SOCKMETA_FLIGHTS other tasks began to
 *    send on the socket.
 * After sockmeta was detached, sockets may for one more second show the record of
 * an earlier datagram.
 *
 * Of TCP, all packets of a connection have the record that was set last.
 *
 * Minimum kernel: 6.1 (earlier ones have not been tried). Needs CAP_PERFMON to
 * load.
 */
#ifndef SOCKMETA_TX_H
#define SOCKMETA_TX_H

#include "sockmeta_abi.h"

/* A record that one program at a time writes and others read: seq is 0 where
 * there never was one, SOCKMETA_BUSY while it is written, and grows. From handle
 * on it is what the slot held (struct sockmeta_tx_slot).
 */
struct sockmeta_flight {
	__u64 seq;
	__u64 handle;
	__u64 socket;
	struct sockmeta_sent rec;
};

/* Transmit slots of a process, on one socket. */
struct sockmeta_proc {
	__u64 addr;
	__u32 tgid;
	__u32 count;
	__u32 id;		/* 0: free */
	__u32 reserved;
};

/* A socket that sends datagrams with records. Each task that does has a place of
 * its own, so that one that is preempted on a packet's way finds it again.
 */
struct sockmeta_flights {
	__u64 skb[SOCKMETA_FLIGHTS];		/* address of the packet; 0: none */
	__u64 task[SOCKMETA_FLIGHTS];		/* bpf_get_current_pid_tgid() */
	__u64 time[SOCKMETA_FLIGHTS];		/* ns, CLOCK_MONOTONIC */
	__u64 tasks;				/* that took a place so far */
	struct sockmeta_flight at[SOCKMETA_FLIGHTS];
	struct sockmeta_proc procs[SOCKMETA_TX_PROCS];
	/* UDP_SEGMENT trains that may be under way. Software may cut one into packets
	 * that sockmeta's program never sees, and that lie where an earlier datagram
	 * did.
	 */
	__u64 trains;
	__u32 procs_given;
	__u32 reserved;
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct sockmeta_flights);
} sockmeta_flights SEC(".maps");

/* The record of all packets of a TCP connection; version 0: none. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct sockmeta_flight);
} sockmeta_conns SEC(".maps");

#define SOCKMETA_FLIGHT_NS 1000000000ULL

/* Linux 6.2 */
extern void *bpf_cast_to_kern_ctx(void *obj) __ksym __weak;

/* The address of the skb. It is what the program holds, but before
 * bpf_cast_to_kern_ctx() the verifier takes it for a number only when it is read
 * from kernel memory, as the stack is.
 */
static __always_inline __u64 sockmeta_tx_self(struct __sk_buff *skb)
{
	__u64 self = 0;

	if (bpf_cast_to_kern_ctx)
		return (__u64)bpf_cast_to_kern_ctx(skb);
	bpf_probe_read_kernel(&self, sizeof(self), &skb);
	return self;
}

enum sockmeta_ipproto {
	SOCKMETA_IPPROTO_TCP = 6,
	SOCKMETA_IPPROTO_UDP = 17,
};

/* Whether the packet is a whole one of the socket's protocol, and so the skb
 * that sockmeta's program saw. Fragments and tunnels have others of the sender's IPv6
 * headers in front of their own.
 */
static __always_inline int sockmeta_tx_whole(struct __sk_buff *skb, __u32 protocol)
{
	__u8 ip[10], next, opt[2];
	__u32 off = 40, i;

	if (bpf_skb_load_bytes_relative(skb, 0, ip, sizeof(ip), BPF_HDR_START_NET))
		return 0;
	if (ip[0] >> 4 == 4)
		return ip[9] == protocol && !(ip[6] & 0x3f) && !ip[7];
	next = ip[6];
	/* hop-by-hop, routing and destination options, as RFC 8200 has them */
	for (i = 0; i < 4 && (next == 0 || next == 43 || next == 60); i++) {
		if (bpf_skb_load_bytes_relative(skb, off, opt, sizeof(opt), BPF_HDR_START_NET))
			return 0;
		next = opt[0];
		off += (opt[1] + 1) * 8;
	}
	return next == protocol;
}

/* Returns the packet's record and its sequence number, above SOCKMETA_BUSY, or
 * NULL and what is wrong.
 */
static __always_inline struct sockmeta_flight *sockmeta_tx_find(struct __sk_buff *skb, __u64 *seq,
								int *err)
{
	struct bpf_sock *sk = skb->sk;
	struct sockmeta_flights *f;
	struct sockmeta_flight *fl;
	__u64 self;
	__u32 i;

	*err = -2;
	if (!sk)
		return 0;
	sk = bpf_sk_fullsock(sk);
	if (!sk || !sockmeta_tx_whole(skb, sk->protocol))
		return 0;
	if (sk->protocol == SOCKMETA_IPPROTO_TCP) {
		fl = bpf_sk_storage_get(&sockmeta_conns, sk, 0, 0);
		if (!fl)
			return 0;
		*seq = __sync_fetch_and_add(&fl->seq, 0);
		*err = *seq ? -116 : -2;
		return *seq > SOCKMETA_BUSY ? fl : 0;
	}
	f = bpf_sk_storage_get(&sockmeta_flights, sk, 0, 0);
	if (!f)
		return 0;
	self = sockmeta_tx_self(skb);
	for (i = 0; i < SOCKMETA_FLIGHTS; i++) {
		if (f->skb[i] != self || bpf_ktime_get_coarse_ns() - f->time[i] > SOCKMETA_FLIGHT_NS)
			continue;
		*err = -116;
		if (!skb->gso_size && f->trains)
			return 0;
		fl = &f->at[i];
		*seq = __sync_fetch_and_add(&fl->seq, 0);
		if (*seq <= SOCKMETA_BUSY || *(volatile __u64 *)&f->skb[i] != self)
			return 0;
		return fl;
	}
	return 0;
}

/**
 * sockmeta_tx_get - a value that the application sent with the packet
 * @skb: the context of a cgroup_skb/egress or TC egress program
 * @key: 1 to 254
 * @ptr: where to
 * @len: the value's bytes; a compile-time constant from 1 to 246
 *
 * The first occurrence of a key counts. Values are in host byte order, as the
 * application gave them; whether it says the truth is for you to judge.
 *
 * Return: 0; -ENOENT (-2) where the packet has no record or the record no such
 * key; -EMSGSIZE (-90) where the value has another length; -ESTALE (-116) where
 * newer packets took the record's place meanwhile, or it cannot be told whether the
 * record is the packet's.
 */
static __always_inline int sockmeta_tx_get(struct __sk_buff *skb, __u8 key, void *ptr, __u32 len)
{
	struct sockmeta_flight *fl;
	__u32 off = 0, i;
	__u64 seq;
	int err;

	fl = sockmeta_tx_find(skb, &seq, &err);
	if (!fl)
		return err;
	err = -2;
	if (!fl->rec.version || fl->rec.format != SOCKMETA_FORMAT_TLV)
		return err;
	for (i = 0; i < SOCKMETA_AREA_MAX / 4; i++) {
		__u8 *tlv;

		if (off > SOCKMETA_AREA_MAX - 4 || off + 4 > fl->rec.area_len)
			break;
		/* for verifiers that do not remember the line above */
		barrier_var(off);
		tlv = fl->rec.area + (off & SOCKMETA_AREA_MAX);
		if (tlv[0] == key) {
			err = -90;
			if (tlv[1] != len || off + 2 + len > fl->rec.area_len)
				break;
			/* no memcpy: for that the verifier wants to be shown
			 * what the line above says
			 */
			err = bpf_probe_read_kernel(ptr, len, tlv + 2);
			break;
		}
		off += (tlv[1] + 2 + 3) & ~3U;
	}
	if (__sync_fetch_and_add(&fl->seq, 0) != seq)
		return -116;
	return err;
}

#endif

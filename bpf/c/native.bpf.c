// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/*
 * The native tier: programs of recvmsg and sendmsg themselves, which have the
 * control messages in their hands, by functions of the kernel that bpf/kmod adds.
 *
 * Receiving: recvmsg gets the record as a control message, {SOL_BPF,
 * SOCKMETA_SCM_RECORD}, of the sockets that asked for it (SOCKMETA_ENABLE_CMSG). It
 * is made from the packet that recvmsg took from the queue: it takes no memory while
 * the packet waits, and cannot be overrun. What the packet does not tell by itself is
 * in a slot that cgroup ingress filled, with the slot's handle in skb->tstamp.
 *
 * Sending: raw control messages are read as in tracing.bpf.c, but none is missed, and
 * there may be any number of them. A record waits for its packet (raw.h).
 */
#include "raw.h"
#include "record.h"
#include "seqlock.h"
#include <bpf/bpf_tracing.h>

/* Below are numbers of CPUs: skb->napi_id is skb->sender_cpu, too. */
const volatile __u32 first_napi_id;

static __always_inline int is_enabled(const struct sockmeta_sk *st)
{
	return st && st->flags & SOCKMETA_ENABLE_CMSG;
}

/* What ingress put into a slot, if it is still there. */
static __always_inline int read_rx_slot(__u64 handle, const struct sockmeta_sk *st,
					struct sockmeta_record *rec)
{
	__u32 index = handle & SOCKMETA_INDEX_MASK;
	struct sockmeta_slot *slot;

	slot = bpf_map_lookup_elem(&sockmeta_rx, &index);
	if (!slot || read_seq(&slot->seq) != handle || slot->owner != st->id)
		return 0;
	__builtin_memcpy(rec, &slot->rec, sizeof(*rec));
	return read_seq(&slot->seq) == handle;
}

/* read_ending() of an area that is in the record. */
static __always_inline __u32 queued_ending(const struct sockmeta_record *rec, __u32 len)
{
	__u32 words[4] = {}, i;

	for (i = 0; i < 4; i++) {
		__u32 from_end = sizeof(words) - i * sizeof(*words);

		if (len >= from_end)
			words[i] = *(__u32 *)&rec->area[(len - from_end) & SOCKMETA_AREA_MAX];
	}
	return parse_ending(words, len);
}

/* What fill_record() does while the packet is still on its way: it had a device
 * then, and was on the CPU that received it.
 */
static __always_inline void fill_queued(struct sk_buff *skb, struct sockmeta_record *rec)
{
	struct packet_facts f = {
		.tstamp = skb->tstamp,
		.mark = skb->mark,
		.priority = skb->priority,
		.hash = skb->hash,
		.ifindex = skb->skb_iif,
	};
	struct skb_shared_info *shinfo;
	__u32 ending;
	bool lapped;
	int len;

	/* newer packets took its slot */
	lapped = is_handle(f.tstamp);
	if (lapped)
		f.tstamp = 0;
	if (skb->napi_id >= first_napi_id)
		f.napi_id = skb->napi_id;
	if (skb->vlan_proto) {
		f.vlan_tci = skb->vlan_tci;
		f.vlan_proto = skb->vlan_proto;
	}
	shinfo = bpf_rdonly_cast(skb->head + skb->end,
				 bpf_core_type_id_kernel(struct skb_shared_info));
	f.hwtstamp = shinfo->hwtstamps.hwtstamp;
	put_facts(rec, &f);
	if (shinfo->gso_segs > 1)
		rec->flags |= SOCKMETA_F_AGGREGATE;

	len = bpf_skb_meta_read(skb, rec->area, sizeof(rec->area));
	if (len > 0 && len <= SOCKMETA_AREA_MAX) {
		ending = queued_ending(rec, len);
		if (!(ending & ENDING_SEALED)) {
			/* where the packet came from was in the slot */
			rec->flags |= SOCKMETA_F_UNREADABLE;
			return;
		}
		len = (len - ENDING_SIZE(ending)) & SOCKMETA_AREA_MAX;
		rec->format = ENDING_FORMAT(ending);
		*(__u32 *)&rec->area[len] = bpf_htonl(SOCKMETA_ANCHOR(rec->format));
		rec->area_len = len + SOCKMETA_ANCHOR_SIZE;
	}
	/* then it had a slot for what the sender gave */
	if (lapped)
		rec->flags |= SOCKMETA_F_SENDER_LOST;
}

static __always_inline void put_record(struct msghdr *msg, struct sk_buff *skb,
				       const struct sockmeta_sk *st)
{
	struct sockmeta_record rec;
	__u64 stamp = skb->tstamp;

	if (!is_handle(stamp) || !read_rx_slot(stamp, st, &rec))
		fill_queued(skb, &rec);
	/* where it does not go in, MSG_CTRUNC says so */
	bpf_msg_put_cmsg(msg, SOL_BPF, SOCKMETA_SCM_RECORD, &rec,
			 RECORD_HDR + (rec.area_len & SOCKMETA_AREA_MAX));
}

static __always_inline int on_recv(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct sockmeta_sk *st;
	struct sk_buff *skb;
	struct msghdr *msg;

	if (!sk)
		return 1;
	st = bpf_sk_storage_get(&sockmeta_sks, sk, 0, 0);
	if (!is_enabled(st))
		return 1;
	msg = bpf_sock_addr_msg_acquire(ctx);
	if (!msg)
		return 1;
	skb = bpf_msg_skb_acquire(msg);
	if (skb) {
		put_record(msg, skb, st);
		bpf_msg_skb_release(skb);
	}
	bpf_msg_release(msg);
	return 1;
}

SEC("cgroup/recvmsg4")
int sockmeta_recv4(struct bpf_sock_addr *ctx)
{
	return on_recv(ctx);
}

SEC("cgroup/recvmsg6")
int sockmeta_recv6(struct bpf_sock_addr *ctx)
{
	return on_recv(ctx);
}

/* In front of recvmsg, where it may still wait for pages. */
SEC("lsm.s/socket_recvmsg")
int BPF_PROG(sockmeta_fault_in, struct socket *sock, struct msghdr *msg, int size, int flags)
{
	struct sockmeta_sk *st;
	struct sock *sk;

	sk = sock->sk;
	if (!sk)
		return 0;
	st = bpf_sk_storage_get(&sockmeta_sks, sk, 0, 0);
	if (is_enabled(st))
		bpf_msg_fault_in(msg);
	return 0;
}

/* The first record among the control messages. */
static __always_inline void keep_record(__u64 sk, struct msghdr *msg)
{
	__u64 task = this_task();
	struct sockmeta_raw *raw;
	struct cmsghdr *c;
	__u8 more;
	int len;

	for_each(cmsghdr, c, msg) {
		if (c->cmsg_level != SOL_BPF || c->cmsg_type != SOCKMETA_SCM_RECORD)
			continue;
		raw = take_raw(task);
		if (!raw)
			return;
		len = bpf_cmsg_data_read(c, 0, raw->payload, sizeof(raw->payload));
		if (len < 0 || !parse_record(raw, len) ||
		    bpf_cmsg_data_read(c, sizeof(raw->payload), &more, sizeof(more)) > 0)
			count(malformed);
		else
			raw->sk = sk;
		return;
	}
}

static __always_inline int on_send(struct bpf_sock_addr *ctx)
{
	struct msghdr *msg = bpf_sock_addr_msg_acquire(ctx);

	if (!msg)
		return 1;
	keep_record((__u64)ctx->sk, msg);
	bpf_msg_release(msg);
	return 1;
}

SEC("cgroup/sendmsg4")
int sockmeta_send4(struct bpf_sock_addr *ctx)
{
	return on_send(ctx);
}

SEC("cgroup/sendmsg6")
int sockmeta_send6(struct bpf_sock_addr *ctx)
{
	return on_send(ctx);
}

/* Those who add to a corked datagram: the two above are not run for them. It has the
 * record of the message that completes it.
 */
SEC("tp_btf/sockmeta_send")
int BPF_PROG(sockmeta_send_corked, struct sock *sk, struct msghdr *msg)
{
	if (sk && msg && BPF_CORE_READ((struct udp_sock *)sk, pending))
		keep_record((__u64)sk, msg);
	return 0;
}

/* No packet took it: the call failed, or the datagram is corked. */
SEC("tp_btf/sockmeta_sent")
int BPF_PROG(sockmeta_sent, struct sock *sk, struct msghdr *msg)
{
	__u64 task = this_task();

	bpf_map_delete_elem(&sockmeta_raws, &task);
	return 0;
}

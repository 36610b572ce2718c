// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/*
 * Calls the functions of bpf/kmod as nobody should, and notes what they say.
 */
#include "../../../bpf/c/kfuncs.h"
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* The compiler gives types that are only named in an order that depends on where the
 * sources lie: these are whole.
 */
const struct bpf_sock *bpf_sock_type __attribute__((unused));
const struct net_device *net_device_type __attribute__((unused));
const struct sock *sock_type __attribute__((unused));
const struct net *net_type __attribute__((unused));
const struct rtnl_link_ops *rtnl_link_ops_type __attribute__((unused));

#define SOL_IP 0
#define SOL_SOCKET 1
#define SOL_BPF 0xEB9F
#define SCM_RIGHTS 1

/* Of the control messages that the programs put and look for. */
const volatile __u32 type;

struct kmod_seen {
	__u64 runs;
	__s64 no_msg;
	/* bpf_msg_put_cmsg() */
	__s64 rights, ip, negative, good;
	/* walks */
	__s64 messages;
	__u64 len;
	__s64 copied, copied_behind, copied_at_end;
	__u64 first, in_place, too_far;
	/* packets */
	__s64 no_skb, meta, meta_short;
};

struct kmod_seen received, sent, connected;

static __always_inline void put_all(struct msghdr *msg, struct kmod_seen *s)
{
	__u64 value = 0x1122334455667788;

	s->rights = bpf_msg_put_cmsg(msg, SOL_SOCKET, SCM_RIGHTS, &value, 4);
	s->ip = bpf_msg_put_cmsg(msg, SOL_IP, type, &value, sizeof(value));
	s->negative = bpf_msg_put_cmsg(msg, -SOL_BPF, type, &value, sizeof(value));
	s->good = bpf_msg_put_cmsg(msg, SOL_BPF, type, &value, sizeof(value));
}

static __always_inline void walk(struct msghdr *msg, struct kmod_seen *s)
{
	struct cmsghdr *c;
	__u64 buf = 0;
	__u8 *data;

	s->messages = 0;
	for_each(cmsghdr, c, msg) {
		s->messages++;
		if (c->cmsg_level != SOL_BPF || c->cmsg_type != type)
			continue;
		s->len = c->cmsg_len;
		s->copied = bpf_cmsg_data_read(c, 0, &buf, sizeof(buf));
		s->first = buf;
		s->copied_at_end = bpf_cmsg_data_read(c, c->cmsg_len - sizeof(*c), &buf, sizeof(buf));
		s->copied_behind = bpf_cmsg_data_read(c, c->cmsg_len, &buf, sizeof(buf));
		data = bpf_cmsg_data(c, 8);
		s->in_place = data ? *(__u64 *)data : 0;
		s->too_far = bpf_cmsg_data(c, 1 << 20) ? 1 : 0;
	}
}

SEC("cgroup/recvmsg4")
int kmod_recv(struct bpf_sock_addr *ctx)
{
	struct msghdr *msg = bpf_sock_addr_msg_acquire(ctx);
	struct sk_buff *skb, *again;
	__u8 meta[256];

	received.runs++;
	received.no_msg = !msg;
	if (!msg)
		return 1;
	walk(msg, &received);
	put_all(msg, &received);
	skb = bpf_msg_skb_acquire(msg);
	received.no_skb = !skb;
	if (skb) {
		again = bpf_msg_skb_acquire(msg);
		if (again)
			bpf_msg_skb_release(again);
		received.meta_short = bpf_skb_meta_read(skb, meta, 4);
		received.meta = bpf_skb_meta_read(skb, meta, sizeof(meta));
		bpf_msg_skb_release(skb);
	}
	bpf_msg_release(msg);
	return 1;
}

SEC("cgroup/connect4")
int kmod_connect(struct bpf_sock_addr *ctx)
{
	struct msghdr *msg = bpf_sock_addr_msg_acquire(ctx);

	connected.runs++;
	connected.no_msg = !msg;
	if (msg)
		bpf_msg_release(msg);
	return 1;
}

SEC("cgroup/sendmsg4")
int kmod_send(struct bpf_sock_addr *ctx)
{
	struct msghdr *msg = bpf_sock_addr_msg_acquire(ctx);
	struct sk_buff *skb;

	sent.runs++;
	sent.no_msg = !msg;
	if (!msg)
		return 1;
	walk(msg, &sent);
	put_all(msg, &sent);
	skb = bpf_msg_skb_acquire(msg);
	sent.no_skb = !skb;
	if (skb)
		bpf_msg_skb_release(skb);
	bpf_msg_release(msg);
	return 1;
}

struct kmod_seen lsm;

/* LSM programs are given a message of any socket: they have nothing to acquire. */
SEC("lsm/socket_sendmsg")
int BPF_PROG(kmod_lsm, struct socket *sock, struct msghdr *msg, int size)
{
	struct kmod_seen s = {};

	walk(msg, &s);
	if (s.len) {
		put_all(msg, &s);
		s.runs = lsm.runs + 1;
		lsm = s;
	}
	return 0;
}

/* What the verifier is to refuse. */
SEC("?cgroup/recvmsg4")
int kmod_keeps(struct bpf_sock_addr *ctx)
{
	return bpf_sock_addr_msg_acquire(ctx) ? 1 : 1;
}

SEC("?cgroup/recvmsg4")
int kmod_uses_released(struct bpf_sock_addr *ctx)
{
	struct msghdr *msg = bpf_sock_addr_msg_acquire(ctx);
	__u64 value = 0;

	if (!msg)
		return 1;
	bpf_msg_release(msg);
	bpf_msg_put_cmsg(msg, SOL_BPF, type, &value, sizeof(value));
	return 1;
}

SEC("?cgroup/recvmsg4")
int kmod_writes(struct bpf_sock_addr *ctx)
{
	struct msghdr *msg = bpf_sock_addr_msg_acquire(ctx);

	if (!msg)
		return 1;
	msg->msg_control = 0;
	bpf_msg_release(msg);
	return 1;
}

SEC("?cgroup/recvmsg4")
int kmod_sleeps(struct bpf_sock_addr *ctx)
{
	struct msghdr *msg = bpf_sock_addr_msg_acquire(ctx);

	if (!msg)
		return 1;
	bpf_msg_fault_in(msg);
	bpf_msg_release(msg);
	return 1;
}

SEC("?cgroup/sendmsg4")
int kmod_reads_too_far(struct bpf_sock_addr *ctx)
{
	struct msghdr *msg = bpf_sock_addr_msg_acquire(ctx);
	struct cmsghdr *c;
	__u8 *data;

	if (!msg)
		return 1;
	for_each(cmsghdr, c, msg) {
		data = bpf_cmsg_data(c, 8);
		if (data)
			sent.first = data[8];
	}
	bpf_msg_release(msg);
	return 1;
}

/* A pointer that is no message. */
SEC("?lsm/socket_sendmsg")
int BPF_PROG(kmod_forges, struct socket *sock, struct msghdr *msg, int size)
{
	struct msghdr *forged = bpf_rdonly_cast((void *)msg->msg_name,
						bpf_core_type_id_kernel(struct msghdr));
	__u64 value = 0;

	bpf_msg_put_cmsg(forged, SOL_BPF, type, &value, sizeof(value));
	return 0;
}

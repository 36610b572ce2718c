// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/*
 * fentry and fexit of udp_sendmsg and udpv6_sendmsg: programs in any language
 * send a record as a raw control message, {SOL_BPF, SOCKMETA_SCM_RECORD}, which
 * the kernel itself skips (net/core/sock.c, sock_cmsg_send leaves other levels
 * alone). The record waits for the packet under the task's number, as cgroup
 * egress runs in the same task before sendmsg returns: so for sendmmsg, each of
 * whose messages is a call of its own, and for io_uring.
 *
 * A corked datagram (MSG_MORE, UDP_CORK) has the record of the message that
 * completes it.
 *
 * While a task that lost the CPU is in one of these programs, the kernel leaves
 * that program out of what other tasks do on that CPU (__bpf_prog_enter_recur in
 * kernel/bpf/trampoline.c). That is why each is there twice: a datagram goes
 * without its record, or a record outlives its call, only where that happens to
 * both at once.
 */
#include "maps.h"
#include "raw.h"
#include "../include/sockmeta_cmsg.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#define AF_INET6 10

static __always_inline int enter_sendmsg(struct sock *sk, struct msghdr *msg, bool first)
{
	__u64 task = this_task(), size = msg->msg_controllen;
	struct sockmeta_cmsg_iter it;
	struct sockmeta_raw *raw;
	struct sockmeta_cmsg *c;
	__u64 len;

	raw = bpf_map_lookup_elem(&sockmeta_raws, &task);
	if (raw) {
		if (!first && raw->first) {
			raw->first = 0;
			return 0;
		}
		/* of a call that ended without leave_sendmsg() */
		bpf_map_delete_elem(&sockmeta_raws, &task);
	}
	if (!size || BPF_CORE_READ_BITFIELD(msg, msg_control_is_user))
		return 0;
	sockmeta_for_each_cmsg(c, &it, msg->msg_control, size)
		if (c->level == SOL_BPF && c->type == SOCKMETA_SCM_RECORD)
			break;
	if (!c)
		return 0;
	raw = take_raw(task);
	if (!raw)
		return 0;
	raw->first = first;
	len = it.data_len;
	if (len > sizeof(raw->payload) || bpf_probe_read_kernel(raw->payload, len, it.data) ||
	    !parse_record(raw, len)) {
		count(malformed);
		return 0;
	}
	raw->sk = (__u64)sk;
	return 0;
}

/* No packet took it: the call failed, or the datagram is corked. */
static __always_inline int leave_sendmsg(struct msghdr *msg)
{
	__u64 task = this_task();

	if (msg->msg_controllen)
		bpf_map_delete_elem(&sockmeta_raws, &task);
	return 0;
}

/* udpv6_sendmsg hands IPv4-mapped destinations on to udp_sendmsg. */
static __always_inline int is_nested(struct sock *sk)
{
	return sk->__sk_common.skc_family == AF_INET6;
}

SEC("fentry/udp_sendmsg")
int BPF_PROG(sockmeta_udp_enter, struct sock *sk, struct msghdr *msg, __u64 len)
{
	return is_nested(sk) ? 0 : enter_sendmsg(sk, msg, true);
}

SEC("fentry/udp_sendmsg")
int BPF_PROG(sockmeta_udp_enter_again, struct sock *sk, struct msghdr *msg, __u64 len)
{
	return is_nested(sk) ? 0 : enter_sendmsg(sk, msg, false);
}

SEC("fexit/udp_sendmsg")
int BPF_PROG(sockmeta_udp_leave, struct sock *sk, struct msghdr *msg, __u64 len)
{
	return is_nested(sk) ? 0 : leave_sendmsg(msg);
}

SEC("fexit/udp_sendmsg")
int BPF_PROG(sockmeta_udp_leave_again, struct sock *sk, struct msghdr *msg, __u64 len)
{
	return is_nested(sk) ? 0 : leave_sendmsg(msg);
}

SEC("fentry/udpv6_sendmsg")
int BPF_PROG(sockmeta_udp6_enter, struct sock *sk, struct msghdr *msg, __u64 len)
{
	return enter_sendmsg(sk, msg, true);
}

SEC("fentry/udpv6_sendmsg")
int BPF_PROG(sockmeta_udp6_enter_again, struct sock *sk, struct msghdr *msg, __u64 len)
{
	return enter_sendmsg(sk, msg, false);
}

SEC("fexit/udpv6_sendmsg")
int BPF_PROG(sockmeta_udp6_leave, struct sock *sk, struct msghdr *msg, __u64 len)
{
	return leave_sendmsg(msg);
}

SEC("fexit/udpv6_sendmsg")
int BPF_PROG(sockmeta_udp6_leave_again, struct sock *sk, struct msghdr *msg, __u64 len)
{
	return leave_sendmsg(msg);
}

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tracepoints in places of sendmsg() where cgroup programs have no hook. Both are in
 * the task that is in the call, where it may not sleep, and for programs (tp_btf) the
 * arguments are trusted. recvmsg() needs none: the kernel itself gives it a msg_name
 * (net/socket.c, ____sys_recvmsg), so that cgroup/recvmsg4 and 6 are always run.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM sockmeta

#if !defined(SOCKMETA_EVENTS_H) || defined(TRACE_HEADER_MULTI_READ)
#define SOCKMETA_EVENTS_H

#include <linux/socket.h>
#include <linux/tracepoint.h>
#include <net/sock.h>

DECLARE_EVENT_CLASS(sockmeta_sendmsg,
	TP_PROTO(struct sock *sk, struct msghdr *msg),
	TP_ARGS(sk, msg),
	TP_STRUCT__entry(
		__field(const void *, sk)
		__field(size_t, controllen)
	),
	TP_fast_assign(
		__entry->sk = sk;
		__entry->controllen = msg->msg_controllen;
	),
	TP_printk("sk=%p controllen=%zu", __entry->sk, __entry->controllen)
);

/* sendmsg() with control messages begins: before those are checked. */
DEFINE_EVENT(sockmeta_sendmsg, sockmeta_send,
	TP_PROTO(struct sock *sk, struct msghdr *msg),
	TP_ARGS(sk, msg)
);

/* It is done, whether it failed or not. */
DEFINE_EVENT(sockmeta_sendmsg, sockmeta_sent,
	TP_PROTO(struct sock *sk, struct msghdr *msg),
	TP_ARGS(sk, msg)
);

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE events
#include <trace/define_trace.h>

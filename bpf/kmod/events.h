/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tracepoints in places of UDP where BPF programs have no hook of their own. All
 * three are in the task that is in the call, where it may not sleep, and for
 * programs (tp_btf) the arguments are trusted.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM sockmeta

#if !defined(SOCKMETA_EVENTS_H) || defined(TRACE_HEADER_MULTI_READ)
#define SOCKMETA_EVENTS_H

#include <linux/skbuff.h>
#include <linux/socket.h>
#include <linux/tracepoint.h>
#include <net/sock.h>

/*
 * recvmsg() has a datagram, and all of its own control messages are in place. It
 * is there for those who gave no msg_name, for whom cgroup/recvmsg4 and 6 are not
 * run; it comes for the others, too.
 */
TRACE_EVENT(sockmeta_recv,
	TP_PROTO(struct sock *sk, struct msghdr *msg, struct sk_buff *skb),
	TP_ARGS(sk, msg, skb),
	TP_STRUCT__entry(
		__field(const void *, sk)
		__field(unsigned int, len)
		__field(size_t, room)
	),
	TP_fast_assign(
		__entry->sk = sk;
		__entry->len = skb->len;
		__entry->room = msg->msg_controllen;
	),
	TP_printk("sk=%p len=%u room=%zu", __entry->sk, __entry->len, __entry->room)
);

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

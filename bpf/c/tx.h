/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/* Records that applications send: whether they are any, and what of them the
 * policy allows.
 */
#ifndef SOCKMETA_TX_PROGS_H
#define SOCKMETA_TX_PROGS_H

#include "kfuncs.h"
#include "maps.h"
#include <linux/in.h>

/* Of a struct sockmeta_record or sockmeta_sent. */
#define is_sound(rec)							\
	((rec)->version == SOCKMETA_RECORD_VERSION &&			\
	 (rec)->area_len <= SOCKMETA_AREA_MAX && !((rec)->area_len & 3) && \
	 (rec)->format <= SOCKMETA_FORMAT_RAW)

/* All of it but the area. */
static __always_inline void take_fields(struct sockmeta_sent *to, const struct sockmeta_record *from)
{
	to->version = from->version;
	to->reserved = 0;
	to->area_len = from->area_len;
	to->format = from->format;
	to->valid = from->valid;
	to->flags = from->flags;
	to->mark = from->mark;
	to->priority = from->priority;
	to->launch = from->launch;
}

/* Of all attachments' sockets, in the process's transmit slots. */
static __always_inline __u64 socket_number(const struct sockmeta_sk *st)
{
	struct sockmeta_instance *inst = this_instance();

	return inst ? inst->info.instance + st->id : 0;
}

/* Whether the socket has a datagram that several calls make: at egress, whether the
 * packet may be that one.
 */
static __always_inline int may_be_corked(struct bpf_sock *sk)
{
	struct udp_sock *up;

	if (!ksym_exists(bpf_rdonly_cast)) {
		up = kernel_address(sk);
		return BPF_CORE_READ(up, pending);
	}
	up = bpf_rdonly_cast(sk, bpf_core_type_id_kernel(struct udp_sock));
	return up->pending;
}

/* Takes from the record what the sender may not ask for. */
static __always_inline void restrict_record(struct sockmeta_sent *rec, __u32 protocol)
{
	struct sockmeta_instance *inst = this_instance();
	__u16 asked = rec->valid;

	rec->valid &= SOCKMETA_VALID_MARK | SOCKMETA_VALID_PRIORITY | SOCKMETA_VALID_LAUNCH;
	if (!inst) {
		rec->valid = 0;
		return;
	}
	if (asked & SOCKMETA_VALID_MARK && rec->mark & ~inst->policy.mark_mask) {
		rec->valid &= ~SOCKMETA_VALID_MARK;
		count(mark_refused);
	}
	if (asked & SOCKMETA_VALID_PRIORITY && rec->priority > inst->policy.priority_max) {
		rec->valid &= ~SOCKMETA_VALID_PRIORITY;
		count(priority_refused);
	}
	/* TCP says itself when its segments leave */
	if (asked & SOCKMETA_VALID_LAUNCH &&
	    (!inst->policy.launch || protocol != IPPROTO_UDP)) {
		rec->valid &= ~SOCKMETA_VALID_LAUNCH;
		count(launch_refused);
	}
}

#endif

/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/* Finds the segment that brought a byte, for cgroup/getsockopt: see tcp_log.h. */
#ifndef SOCKMETA_TCP_SEARCH_H
#define SOCKMETA_TCP_SEARCH_H

#include "tcp_log.h"

/* What the kernel says of the connection. The socket is locked. */
struct tcp_view {
	__u32 copied_seq;
	__u32 rcv_nxt;
	__u32 rcv_wup;
	__u32 rcv_wnd;
	__u8 fin;		/* the peer's was taken: it is the last of rcv_nxt */
};

static __always_inline void look_at(struct bpf_sock *given, struct tcp_view *v)
{
	struct tcp_sock *tp;
	unsigned long flags;
	struct sock *sk;

	if (!ksym_exists(bpf_rdonly_cast)) {
		tp = kernel_address(given);
		sk = kernel_address(given);
		v->copied_seq = BPF_CORE_READ(tp, copied_seq);
		v->rcv_nxt = BPF_CORE_READ(tp, rcv_nxt);
		v->rcv_wup = BPF_CORE_READ(tp, rcv_wup);
		v->rcv_wnd = BPF_CORE_READ(tp, rcv_wnd);
		flags = BPF_CORE_READ(sk, __sk_common.skc_flags);
	} else {
		tp = bpf_rdonly_cast(given, bpf_core_type_id_kernel(struct tcp_sock));
		sk = bpf_rdonly_cast(given, bpf_core_type_id_kernel(struct sock));
		v->copied_seq = tp->copied_seq;
		v->rcv_nxt = tp->rcv_nxt;
		v->rcv_wup = tp->rcv_wup;
		v->rcv_wnd = tp->rcv_wnd;
		flags = sk->__sk_common.skc_flags;
	}
	v->fin = flags >> bpf_core_enum_value(enum sock_flags, SOCK_DONE) & 1;
}

/* The last byte that the application read. The FIN has a number as well, which
 * copied_seq stands behind once the end was read.
 */
static __always_inline __u32 last_read(const struct tcp_view *v)
{
	return v->copied_seq - 1 - (v->fin && v->copied_seq == v->rcv_nxt);
}

#define load(x) (*(volatile typeof(x) *)&(x))

struct search {
	struct sockmeta_tcp *tcp;
	struct sockmeta_spills *spills;
	__u32 byte;		/* sequence number */
	__u32 segments;		/* that have it */
	__u64 first;		/* number of the first of them in the ring; 0: none */
	__u64 handle;		/* of the slot of the first that was moved; 0: none */
	__u8 sure;		/* whether that, or else first, is not doubtful */
	__u8 lost;		/* what cannot be looked at may have it, too */
};

static __always_inline int has_byte(__u32 start, __u32 end, __u32 byte)
{
	return !after(start, byte) && after(end, byte);
}

/* For bpf_loop(): the verifier would follow every way through the cells. */
static int look_into_cell(__u32 i, struct search *s)
{
	struct sockmeta_cell *cell = &s->tcp->ring[i & (SOCKMETA_TCP_RING - 1)];
	__u64 seq = load(cell->seq);
	__u32 start = load(cell->start), end = load(cell->end);
	__u8 sure = !load(cell->doubtful);

	if (!seq)
		return 0;
	if (!is_record(seq) || read_seq(&cell->seq) != seq) {
		s->lost = 1;
		return 0;
	}
	if (!has_byte(start, end, s->byte))
		return 0;
	s->segments++;
	if (!s->first || sure > s->sure || (sure == s->sure && seq < s->first)) {
		s->first = seq;
		s->sure = sure;
	}
	return 0;
}

/* Those that were moved came before those in the ring. */
static int look_into_spilled(__u32 i, struct search *s)
{
	struct sockmeta_spilled *p;
	__u32 start, end;
	__u64 seq;
	__u8 sure;

	p = spilled_at(s->spills, s->spills->head + i);
	seq = load(p->seq);
	start = load(p->start);
	end = load(p->end);
	if (!seq)
		return 0;
	if (!is_record(seq) || read_seq(&p->seq) != seq) {
		s->lost = 1;
		return 0;
	}
	if (!has_byte(start, end, s->byte))
		return 0;
	s->segments++;
	sure = !(seq & SPILLED_DOUBTFUL);
	if (sure > s->sure || (sure == s->sure && !s->handle)) {
		s->handle = seq & ~SPILLED_DOUBTFUL;
		s->sure = sure;
	}
	return 0;
}

/* The loads are not ordered on every architecture: what they find is checked again,
 * with barriers, when it is copied.
 */
static __always_inline void search(struct search *s)
{
	__u64 high;

	bpf_loop(SOCKMETA_TCP_RING, look_into_cell, s, 0);
	if (s->spills) {
		high = read_seq(&s->spills->high);
		if (high & SPILLS_USED && after(high, s->byte))
			bpf_loop(SOCKMETA_SPILLS, look_into_spilled, s, 0);
	}
	/* at last, because what leaves the log goes there first */
	if (s->tcp->all_lost || in_range(read_seq(&s->tcp->lost), s->byte))
		s->lost = 1;
}

/* What the record that was found is worth. */
static __always_inline __u16 doubts(const struct search *s)
{
	if (s->segments > 1)
		return SOCKMETA_F_REPEATED | SOCKMETA_F_UNPROVEN;
	/* segments may have come that nobody logged */
	if (s->tcp->late && !after(s->byte, s->tcp->settled))
		return SOCKMETA_F_UNPROVEN;
	return 0;
}

/* Forgets what the application has read past, or it would count again once the
 * sequence numbers have gone around. The log's writers may be at work.
 */
static __always_inline void forget_read(const struct search *s, __u32 read)
{
	struct sockmeta_tcp *tcp = s->tcp;
	__u64 old;

	if (tcp->late && after(read - 1, tcp->settled))
		tcp->late = 0;
	old = load(tcp->lost);
	if (old && after(read, old >> 32))
		__sync_val_compare_and_swap(&tcp->lost, old, 0);
	if (!s->spills)
		return;
	old = load(s->spills->high);
	if (old & SPILLS_USED && !is_needed(old, read))
		__sync_val_compare_and_swap(&s->spills->high, old, 0);
}

#endif

/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/* Finds the segment that brought a byte, for cgroup/getsockopt: see tcp_log.h. */
#ifndef SOCKMETA_TCP_SEARCH_H
#define SOCKMETA_TCP_SEARCH_H

#include "tcp_pages.h"

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

struct search {
	struct sockmeta_tcp *tcp;
	struct sockmeta_spills *spills;
	struct sockmeta_page *page;	/* that is looked into, */
	__u32 entries;		/* and how many it should have */
	__u64 owner;		/* struct sockmeta_sk.id */
	__u32 byte;		/* sequence number */
	__u32 read;		/* copied_seq */
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

/* A segment that is logged, as it was under one number. */
struct logged {
	__u64 seq;		/* 0: nothing */
	__u64 owner;
	__u32 start, end;
	__u32 doubtful;
};

/* Writers take less time than a few looks. What a cell had before is in the spills
 * then, which are looked at later.
 */
#define LOOKS 8

/* Both are global, so that the verifier looks at them once and not again for each way
 * that leads here. They return 0 when the segment is being written all the time.
 */
__noinline int look_at_cell(struct sockmeta_cell *cell, struct logged *l)
{
	__u32 i;

	if (!cell || !l)
		return 0;
	for (i = 0; i < LOOKS; i++) {
		l->seq = load(cell->seq);
		l->start = load(cell->start);
		l->end = load(cell->end);
		l->doubtful = load(cell->doubtful);
		if (!l->seq || (is_record(l->seq) && read_seq(&cell->seq) == l->seq))
			return 1;
	}
	return 0;
}

__noinline int look_at_entry(struct sockmeta_spilled *entry, struct logged *l)
{
	__u32 i;

	if (!entry || !l)
		return 0;
	for (i = 0; i < LOOKS; i++) {
		l->seq = load(entry->seq);
		l->owner = load(entry->owner);
		l->start = load(entry->start);
		l->end = load(entry->end);
		l->doubtful = !!(l->seq & SPILLED_DOUBTFUL);
		if (!l->seq || (is_record(l->seq) && read_seq(&entry->seq) == l->seq))
			return 1;
	}
	return 0;
}

/* For bpf_loop(): the verifier would follow every way through the cells. */
static int look_into_cell(__u32 i, struct search *s)
{
	struct sockmeta_cell *cell = &s->tcp->ring[i & (SOCKMETA_TCP_RING - 1)];
	struct logged l = {};
	__u8 sure;

	if (!look_at_cell(cell, &l)) {
		s->lost = 1;
		return 0;
	}
	if (!l.seq || !has_byte(l.start, l.end, s->byte))
		return 0;
	s->segments++;
	sure = !l.doubtful;
	if (!s->first || sure > s->sure || (sure == s->sure && l.seq < s->first)) {
		s->first = l.seq;
		s->sure = sure;
	}
	return 0;
}

/* Those that were moved came before those in the ring. */
static int look_into_entry(__u32 i, struct search *s)
{
	struct sockmeta_spilled *p = &s->page->at[i & (SOCKMETA_PAGE - 1)];
	struct logged l = {};
	__u8 sure;

	if (i >= s->entries)
		return 1;
	if (!look_at_entry(p, &l) || !l.seq || l.owner != s->owner) {
		s->lost = 1;
		return 1;
	}
	if (!has_byte(l.start, l.end, s->byte))
		return 0;
	s->segments++;
	sure = !l.doubtful;
	if (sure > s->sure || (sure == s->sure && !s->handle)) {
		s->handle = l.seq & ~SPILLED_DOUBTFUL;
		s->sure = sure;
	}
	return 0;
}

/* From the oldest page on. A connection has the next entry's page, or not yet. */
static int look_into_page(__u32 i, struct search *s)
{
	__u64 head = read_seq(&s->spills->head), first, number, n;
	struct sockmeta_page_ref *ref;
	sockmeta_range range;

	first = (head + SOCKMETA_PAGE - 1) / SOCKMETA_PAGE;
	first = first > SOCKMETA_PAGE_REFS ? first - SOCKMETA_PAGE_REFS : 0;
	n = first + i;
	if (n * SOCKMETA_PAGE >= head)
		return 1;
	ref = page_ref(s->spills, n);
	number = read_seq(&ref->number);
	range = read_seq(&ref->range);
	/* without a number, its entries are in lost */
	if (!number || !in_range(range, s->byte)) {
		/* what has been read past would count again, see forget_read() */
		if (range && !is_needed(range >> 32, s->read))
			__sync_val_compare_and_swap(&ref->range, range, 0);
		return 0;
	}
	s->page = page_of(number);
	if (!s->page || read_seq(&s->page->number) != number) {
		s->lost = 1;
		return 1;
	}
	s->entries = head - n * SOCKMETA_PAGE;
	bpf_loop(SOCKMETA_PAGE, look_into_entry, s, 0);
	if (read_seq(&s->page->number) != number || read_seq(&ref->number) != number)
		s->lost = 1;
	return 0;
}

/* Once through the log. The loads are not ordered on every architecture: what they
 * find is checked again, with barriers, when it is copied.
 */
static int search_once(__u32 pass, struct search *s)
{
	s->segments = 0;
	s->first = 0;
	s->handle = 0;
	s->sure = 0;
	s->lost = 0;
	bpf_loop(SOCKMETA_TCP_RING, look_into_cell, s, 0);
	if (s->spills)
		bpf_loop(SOCKMETA_PAGE_REFS, look_into_page, s, 0);
	/* what is being written will have been in a moment */
	return !s->lost;
}

#define SEARCHES 8

/* All ones if the range has the byte, else 0: what branches forks the verifier's way. */
static __always_inline __u64 mask_of(__u32 start, __u32 end, __u32 byte)
{
	__u64 behind = (__u32)(byte - start), len = (__u32)(end - start);

	return (__s64)(behind - len) >> 63;
}

/* The sum of the numbers in the ring, which only grow: the same again, and nobody wrote
 * meanwhile. 0 while somebody writes. Between two barriers.
 */
static __always_inline __u64 sum_of_numbers(struct sockmeta_tcp *tcp)
{
	__u64 n, sum = 1;
	__u32 i;

	barrier_fetching(&tcp->head);
	for (i = 0; i < SOCKMETA_TCP_RING; i++) {
		n = load(tcp->ring[i].seq);
		if (n == SOCKMETA_BUSY)
			return 0;
		sum += n;
	}
	barrier_fetching(&tcp->head);
	return sum;
}

/* Once through the log, without a barrier and a call for each cell: nobody wrote to the
 * ring meanwhile, and at most one of its cells has the byte. Else it returns 0.
 */
static __always_inline int search_quiet(struct search *s)
{
	__u64 sum, mask, segments = 0, first = 0, doubtful = 0;
	struct sockmeta_tcp *tcp = s->tcp;
	struct sockmeta_cell *cell;
	__u32 i;

	sum = sum_of_numbers(tcp);
	for (i = 0; i < SOCKMETA_TCP_RING; i++) {
		cell = &tcp->ring[i];
		mask = mask_of(load(cell->start), load(cell->end), s->byte);
		segments -= mask;
		first |= mask & load(cell->seq);
		doubtful |= mask & load(cell->doubtful);
	}
	if (!sum || sum != sum_of_numbers(tcp) || segments > 1 || (segments && !first))
		return 0;
	s->segments = segments;
	s->first = first;
	s->sure = segments && !doubtful;
	if (s->spills)
		bpf_loop(SOCKMETA_PAGE_REFS, look_into_page, s, 0);
	return !s->lost;
}

/* What was found of a byte. */
struct found {
	__u32 read;		/* to be set: copied_seq */
	__u64 first;		/* as in struct search */
	__u64 handle;
	__u32 segments;
	__u32 lost;
};

/* Global, so that the verifier looks at it once and not again for each way that leads
 * here.
 */
__noinline int search(struct sockmeta_tcp *tcp, struct sockmeta_spills *spills, __u64 owner,
		      __u32 byte, struct found *f)
{
	struct search s = { .tcp = tcp, .spills = spills, .owner = owner, .byte = byte };

	if (!tcp || !f)
		return 0;
	s.read = f->read;
	if (!search_quiet(&s))
		bpf_loop(SEARCHES, search_once, &s, 0);
	f->first = s.first;
	f->handle = s.handle;
	f->segments = s.segments;
	/* at last, because what leaves the log goes there first */
	f->lost = s.lost || tcp->all_lost || in_range(read_seq(&tcp->lost), byte);
	return 0;
}

/* Whether the byte that TCP has read up to may be another than the log's of that number.
 * TCP merges what waits behind a FIN with what that came with (tcp_try_coalesce), and
 * counts the bytes behind it as if it had no number.
 */
static __always_inline int is_shifted(struct sockmeta_tcp *tcp, __u32 byte,
				      const struct tcp_view *v)
{
	__u64 fins = read_seq(&tcp->fins);

	return v->fin && fins && !after((__u32)fins, byte);
}

/* What the record that was found is worth. */
static __always_inline __u16 doubts(const struct sockmeta_tcp *tcp, __u32 byte,
				    const struct found *f)
{
	if (f->segments > 1)
		return SOCKMETA_F_REPEATED | SOCKMETA_F_UNPROVEN;
	/* segments may have come that nobody logged */
	if (tcp->late && !after(byte, tcp->settled))
		return SOCKMETA_F_UNPROVEN;
	return 0;
}

#endif

// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/*
 * cgroup/getsockopt and cgroup/setsockopt: the options at level SOL_BPF, and
 * SO_TIMESTAMPING, which an application may set on the same socket that
 * sockmeta uses it on. The programs see every get- and setsockopt of the
 * cgroup: they return at once where it is none of these, and leave retval and
 * optlen as they found them.
 */
#include "bounds.h"
#include "sending.h"
#include "slots.h"
#include "tcp_search.h"
#include "tx.h"
#include "../include/sockmeta.h"
#include <linux/net_tstamp.h>

#define SOL_SOCKET 1
#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define AF_INET 2
#define AF_INET6 10
#define SO_TIMESTAMPING_OLD 37
#define SO_TIMESTAMPING_NEW 65
/* Linux 6.13 */
#define SOCK_OPS_CB_FLAGS 1008	/* TCP_BPF_SOCK_OPS_CB_FLAGS */
#define SOL_TCP 6
#define TCP_ESTABLISHED 1
#define TCP_SYN_RECV 3
#define TCP_FIN_WAIT1 4
#define TCP_FIN_WAIT2 5
#define TCP_CLOSE 7
#define TCP_CLOSE_WAIT 8
/* Linux 6.12 */
#define OPT_RX_FILTER (1 << 17)

static __always_inline int refuse(int err)
{
	bpf_set_retval(err);
	return 0;
}

static __always_inline int answer_with(struct bpf_sockopt *ctx, __u32 len)
{
	ctx->optlen = len;
	/* the verifier refuses one 8-byte store for both */
	barrier();
	ctx->retval = 0;
	return 1;
}

static __always_inline int is_timestamping(const struct bpf_sockopt *ctx)
{
	return ctx->level == SOL_SOCKET &&
	       (ctx->optname == SO_TIMESTAMPING_OLD || ctx->optname == SO_TIMESTAMPING_NEW);
}

/* Opens the log of a connection that is open already. */
static __always_inline int log_late(struct bpf_sockopt *ctx)
{
	struct sockmeta_tcp *tcp;
	struct tcp_view v;

	if (bpf_sk_storage_get(&sockmeta_tcps, ctx->sk, 0, 0))
		return 1;
	tcp = bpf_sk_storage_get(&sockmeta_tcps, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!tcp)
		return 0;
	look_at(ctx->sk, &v);
	tcp->unread = v.copied_seq - 1;
	be_late(tcp, v.rcv_wup, v.rcv_wnd);
	publish(&tcp->established, 1);
	return 1;
}

/* Whether data may come in this state, or wait to be read, that sockops will not be told
 * of: a connection that Fast Open made is accepted while it is TCP_SYN_RECV.
 */
static __always_inline int may_bring(__u32 state)
{
	return state == TCP_ESTABLISHED || state == TCP_SYN_RECV || state == TCP_FIN_WAIT1 ||
	       state == TCP_FIN_WAIT2 || state == TCP_CLOSE_WAIT;
}

/* Has sockops told of the connection's end, for bounds.h: for sockets that are open
 * already. Others get that from sockops itself. Linux 6.13.
 */
static __always_inline void watch_end(struct bpf_sock *sk)
{
	int flags = 0;

	if (bpf_getsockopt(sk, SOL_TCP, SOCK_OPS_CB_FLAGS, &flags, sizeof(flags)))
		return;
	flags |= BPF_SOCK_OPS_STATE_CB_FLAG;
	bpf_setsockopt(sk, SOL_TCP, SOCK_OPS_CB_FLAGS, &flags, sizeof(flags));
}

/* Whether the socket is UDP's or TCP's own. Others have such protocol numbers, too: raw
 * sockets, and netlink's, of which 6 is NETLINK_XFRM. Behind their struct sock there is
 * none of what these programs, and the kernel for them, read and write.
 */
static __always_inline int is_transport(const struct bpf_sock *sk)
{
	if (sk->family != AF_INET && sk->family != AF_INET6)
		return 0;
	return (sk->protocol == IPPROTO_UDP && sk->type == SOCK_DGRAM) ||
	       (sk->protocol == IPPROTO_TCP && sk->type == SOCK_STREAM);
}

/* Whether the socket could opt in, for those that did not. */
static __always_inline int ask(struct bpf_sockopt *ctx, const struct sockmeta_sk *st)
{
	struct sockmeta_room *room;
	__u32 zero = 0;
	int at = 0;

	if (!st) {
		at = enter_room(uid_of(ctx->sk));
		room = bpf_map_lookup_elem(&sockmeta_rooms, &zero);
		if (at >= 0 && room)
			leave_room(room, at);
	}
	if (at < 0)
		return refuse(at);
	ctx->optlen = -1;
	return 1;
}

static __always_inline int enable(struct bpf_sockopt *ctx)
{
	struct sockmeta_enable *req = ctx->optval;
	struct sockmeta_instance *inst = this_instance();
	struct sockmeta_sk *st, new = {};
	struct bpf_sock *sk = ctx->sk;
	__u32 flags = 0;
	int err;

	/* another attachment of the same cgroup has done it */
	if (ctx->optlen == -1)
		return 1;
	/* optval has 16 bytes at least, whatever optlen says */
	if (ctx->optlen < (int)__builtin_offsetof(struct sockmeta_enable, flags) ||
	    (void *)&req->reserved > ctx->optval_end)
		return refuse(-EINVAL);
	if (req->abi != SOCKMETA_ABI || !sk)
		return 1;
	if (!inst || !is_transport(sk))
		return 1;
	if (ctx->optlen >= (int)sizeof(*req) && (void *)(req + 1) <= ctx->optval_end &&
	    req->instance && req->instance != inst->info.instance)
		return 1;
	if (ctx->optlen >= (int)__builtin_offsetof(struct sockmeta_enable, reserved))
		flags = req->flags;
	st = bpf_sk_storage_get(&sockmeta_sks, sk, 0, 0);
	if (flags == SOCKMETA_ENABLE_ASK)
		return ask(ctx, st);
	if (flags & ~SOCKMETA_ENABLE_CMSG ||
	    (flags && (sk->protocol != IPPROTO_UDP ||
		       !(inst->info.features & SOCKMETA_FEATURE_NATIVE))))
		return refuse(-EOPNOTSUPP);
	if (!st) {
		err = take_seat(sk);
		if (err)
			return refuse(err);
		/* whole from the beginning: packets may come meanwhile, and none is
		 * to be that of a socket without an id
		 */
		new.id = __sync_fetch_and_add(&inst->last_id, 1) + 1;
		new.protocol = sk->protocol;
		new.flags = flags;
		new.since = unit_now();
		st = bpf_sk_storage_get(&sockmeta_sks, sk, &new, BPF_SK_STORAGE_GET_F_CREATE);
	}
	if (!st)
		return refuse(-ENOMEM);
	st->tsflags = req->tsflags;
	st->flags = flags;
	if (sk->protocol == IPPROTO_TCP &&
	    may_bring(sk->state) && !log_late(ctx))
		return refuse(-ENOMEM);
	if (sk->protocol == IPPROTO_TCP && sk->state != TCP_CLOSE)
		watch_end(sk);
	ctx->optlen = -1;	/* done: the kernel is not to see it */
	return 1;
}

/* Copies an area in, 4 bytes at a time, and says how many there were. */
static __always_inline __u32 copy_area(struct bpf_sockopt *ctx, struct sockmeta_sent *to)
{
	const __u32 *from = ctx->optval + RECORD_HDR;
	__u32 i;

	for (i = 0; i < SOCKMETA_AREA_MAX / sizeof(*from); i++) {
		if ((void *)(from + i + 1) > ctx->optval_end)
			break;
		*(__u32 *)&to->area[i * sizeof(*from)] = from[i];
	}
	return i * sizeof(*from);
}

/* The record of all packets of a connection from now on. The socket's lock
 * keeps others from setting one.
 */
static __always_inline int set_record(struct bpf_sockopt *ctx, struct sockmeta_sk *st)
{
	struct sockmeta_record *rec = ctx->optval;
	struct sockmeta_flight *conn;
	int len = ctx->optlen;
	__u64 old;

	if (len < 0 || len > (int)sizeof(*rec))
		return refuse(-EMSGSIZE);
	/* a record that is refused leaves the one that there was */
	if (len && (len < (int)RECORD_HDR || (void *)rec + RECORD_HDR > ctx->optval_end ||
		    !is_sound(rec) || rec->hdr_len != RECORD_HDR ||
		    len < (int)RECORD_HDR + rec->area_len))
		return refuse(-EINVAL);
	conn = bpf_sk_storage_get(&sockmeta_conns, ctx->sk, 0,
				  len ? BPF_SK_STORAGE_GET_F_CREATE : 0);
	if (!conn && len)
		return refuse(-ENOMEM);
	if (conn) {
		old = claim(&conn->seq);
		if (old == SOCKMETA_BUSY)
			return refuse(-EBUSY);
		conn->rec.version = 0;
		if (len && (void *)rec + RECORD_HDR <= ctx->optval_end) {
			take_fields(&conn->rec, rec);
			if (copy_area(ctx, &conn->rec) < conn->rec.area_len)
				conn->rec.version = 0;
			restrict_record(&conn->rec, IPPROTO_TCP);
			st->transmits = 1;
		}
		publish(&conn->seq, (old ? old : SOCKMETA_BUSY) + 1);
	}
	ctx->optlen = -1;
	return 1;
}

/* This process's slots, where it has said where they are. */
static __always_inline struct sockmeta_proc *this_proc(struct sockmeta_flights *f)
{
	__u32 tgid = this_task() >> 32, i;

	for (i = 0; i < SOCKMETA_TX_PROCS; i++)
		if (f->procs[i].id && f->procs[i].tgid == tgid)
			return &f->procs[i];
	return 0;
}

/*
 * Tells where the transmit slots of this process are. It asks again when the
 * numbers of its slots begin anew (bpf/txslots_linux.go). A datagram that waits
 * corked, by whichever process, may have such a number, and leave with what the slot
 * has by then: as long as there is one the answer is EBUSY. The socket's lock,
 * which is held here, is held while a datagram is corked and while it leaves.
 */
static __always_inline int set_slots(struct bpf_sockopt *ctx, struct sockmeta_sk *st)
{
	struct sockmeta_tx_slots *req = ctx->optval;
	struct sockmeta_flights *f;
	struct sockmeta_proc *proc;
	__u32 round, index;

	if (ctx->optlen < (int)sizeof(*req) || (void *)(req + 1) > ctx->optval_end ||
	    !req->count || req->count > 1 << SOCKMETA_TX_INDEX_BITS)
		return refuse(-EINVAL);
	if (req->abi != SOCKMETA_ABI)
		return 1;
	if (may_be_corked(ctx->sk))
		return refuse(-EBUSY);
	f = bpf_sk_storage_get(&sockmeta_flights, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!f)
		return refuse(-ENOMEM);
	proc = this_proc(f);
	/* or takes the place of the one that has been there for longest */
	if (!proc || proc->addr != req->addr || proc->count != req->count) {
		index = f->procs_given++ & (SOCKMETA_TX_PROCS - 1);
		if (proc)
			proc->id = 0;
		proc = &f->procs[index];
		proc->id = 0;
		proc->addr = req->addr;
		proc->count = req->count;
		proc->tgid = this_task() >> 32;
		/* the place, and how many have had it: not 0 */
		round = (f->procs_given + SOCKMETA_TX_PROCS - 1) / SOCKMETA_TX_PROCS;
		proc->id = (round % (SOCKMETA_TX_PROC_IDS / SOCKMETA_TX_PROCS - 1) + 1) *
			   SOCKMETA_TX_PROCS + index;
	}
	/* from here on egress sees to trains */
	if (!st->transmits) {
		st->transmits = 1;
		count_earlier_trains(f, ctx->sk, 0);
	}
	ctx->optlen = -1;
	return 1;
}

SEC("cgroup/setsockopt")
int sockmeta_setsockopt(struct bpf_sockopt *ctx)
{
	struct sockmeta_sk *st;
	__u32 *flags;

	if (ctx->level == SOL_BPF && ctx->optname == SOCKMETA_OPT_ENABLE)
		return enable(ctx);
	if ((ctx->level != SOL_BPF && !is_timestamping(ctx)) || !ctx->sk)
		return 1;
	st = bpf_sk_storage_get(&sockmeta_sks, ctx->sk, 0, 0);
	if (!st)
		return 1;
	if (ctx->level == SOL_BPF) {
		if (ctx->optlen == -1)
			return 1;
		if (ctx->optname == SOCKMETA_OPT_TX_RECORD && st->protocol == IPPROTO_TCP)
			return set_record(ctx, st);
		if (ctx->optname == SOCKMETA_OPT_TX_SLOTS && st->protocol == IPPROTO_UDP)
			return set_slots(ctx, st);
		return 1;
	}
	flags = ctx->optval;
	if (st->protocol != IPPROTO_UDP || ctx->optlen < (int)sizeof(*flags) ||
	    (void *)(flags + 1) > ctx->optval_end)
		return 1;
	st->tsflags = *flags;
	*flags = (*flags | SOF_TIMESTAMPING_SOFTWARE) & ~OPT_RX_FILTER;
	return 1;
}

/* Copies a record out, if it is still the one that had the number want at seq;
 * else the buffer is left with zeros. The buffer takes a whole record or none.
 * What is behind the area was another packet's, and maybe another socket's: it
 * stays here. Global, so that the verifier looks at it once and not again for each
 * way that leads here.
 */
__noinline int copy_record(struct bpf_sockopt *ctx, __u64 *seq, __u64 want,
			   const struct sockmeta_record *rec, int in_answer)
{
	const __u32 *from = (const __u32 *)rec;
	__u32 *to, end, i;

	if (!rec || !seq)
		return 0;
	to = ctx->optval + (in_answer ? __builtin_offsetof(struct sockmeta_answer, rec) : 0);
	if ((void *)to + sizeof(*rec) > ctx->optval_end)
		return 0;
	end = (RECORD_HDR + rec->area_len) / sizeof(*from);
	for (i = 0; i < sizeof(*rec) / sizeof(*from); i++) {
		if (i >= end)
			break;
		to[i] = from[i];
	}
	if (read_seq(seq) == want)
		return 1;
	__builtin_memset(to, 0, sizeof(*rec));
	return 0;
}

static __always_inline int get_info(struct bpf_sockopt *ctx)
{
	struct sockmeta_instance *inst = this_instance();
	struct sockmeta_info *info = ctx->optval;

	if ((void *)(info + 1) > ctx->optval_end)
		return refuse(-EMSGSIZE);
	if (!inst)
		return 1;
	*info = inst->info;
	return answer_with(ctx, sizeof(*info));
}

/* getsockopt says CLOCK_REALTIME, which is 0, also where SO_TXTIME was never set. */
static __always_inline __u32 txtime_clock(const struct bpf_sock *given)
{
	struct sock *sk = kernel_address(given);
	__u64 flags = BPF_CORE_READ(sk, __sk_common.skc_flags);

	if (!(flags >> bpf_core_enum_value(enum sock_flags, SOCK_TXTIME) & 1))
		return 0;
	return BPF_CORE_READ(sk, sk_clockid) + 1;
}

static __always_inline int get_tx_info(struct bpf_sockopt *ctx, const struct sockmeta_sk *st)
{
	struct sockmeta_instance *inst = this_instance();
	struct sockmeta_tx_info *info = ctx->optval;
	struct sockmeta_flights *f;
	struct sockmeta_proc *proc;

	if ((void *)(info + 1) > ctx->optval_end)
		return refuse(-EMSGSIZE);
	if (!inst)
		return 1;
	info->socket = socket_number(st);
	info->proc = 0;
	info->clock = txtime_clock(ctx->sk);
	info->policy = inst->policy;
	f = bpf_sk_storage_get(&sockmeta_flights, ctx->sk, 0, 0);
	if (f) {
		proc = this_proc(f);
		if (proc)
			info->proc = proc->id;
	}
	return answer_with(ctx, sizeof(*info));
}

/* A slot is shown to the socket that it was filled for, and to no other. */
static __always_inline int get_slot(struct bpf_sockopt *ctx, const struct sockmeta_sk *st)
{
	struct sockmeta_answer *answer = ctx->optval;
	__u32 index = ctx->optname & SOCKMETA_INDEX_MASK;
	struct sockmeta_slot *slot;
	__u64 seq;

	if ((void *)(answer + 1) > ctx->optval_end)
		return refuse(-EMSGSIZE);
	slot = bpf_map_lookup_elem(&sockmeta_rx, &index);
	if (!slot)
		return refuse(-ENODATA);
	seq = read_seq(&slot->seq);
	if (!is_record(seq) || slot->owner != st->id)
		return refuse(-ENODATA);
	answer->seq = seq;
	answer->tsflags = slot->tsflags;
	answer->reserved = 0;
	if (!copy_record(ctx, &slot->seq, seq, &slot->rec, 1)) {
		answer->seq = 0;
		answer->tsflags = 0;
		return refuse(-ENODATA);
	}
	return answer_with(ctx, sizeof(*answer));
}

/* Answers with the record of the cell, unless it changed since read_seq()
 * returned seq.
 */
static __always_inline int get_cell(struct bpf_sockopt *ctx, struct sockmeta_cell *cell, __u64 seq,
				    __u16 flags)
{
	struct sockmeta_record *rec = ctx->optval;

	if ((void *)(rec + 1) > ctx->optval_end)
		return refuse(-EMSGSIZE);
	if (!copy_record(ctx, &cell->seq, seq, &cell->rec, 0))
		return refuse(-EOVERFLOW);
	rec->flags |= flags;
	return answer_with(ctx, sizeof(*rec));
}

static __always_inline int get_newest(struct bpf_sockopt *ctx, struct sockmeta_cell *cell, __u16 flags)
{
	__u64 seq = read_seq(&cell->seq);

	if (!is_record(seq))
		return refuse(seq ? -EOVERFLOW : -ENODATA);
	return get_cell(ctx, cell, seq, flags);
}

static __always_inline int get_opening(struct bpf_sockopt *ctx, struct sockmeta_tcp *tcp)
{
	if (!tcp->opened)
		return refuse(-ENODATA);
	return get_cell(ctx, &tcp->opening, tcp->opened, tcp->opening_flags);
}

/* Answers with the record that was moved to a slot, if it is still there. */
static __always_inline int get_moved(struct bpf_sockopt *ctx, __u64 handle, __u16 flags)
{
	__u32 index = handle & SOCKMETA_INDEX_MASK;
	struct sockmeta_record *rec = ctx->optval;
	struct sockmeta_slot *slot;

	if ((void *)(rec + 1) > ctx->optval_end)
		return refuse(-EMSGSIZE);
	slot = bpf_map_lookup_elem(&sockmeta_rx, &index);
	if (!slot || !copy_record(ctx, &slot->seq, handle, &slot->rec, 0))
		return refuse(-EOVERFLOW);
	rec->flags |= flags;
	return answer_with(ctx, sizeof(*rec));
}

/* Looks for a byte in the ring, and then in the spills. Those come to be when the first
 * record moves, before its cell is another's: maybe while the ring is looked at.
 */
static __always_inline void search_log(struct bpf_sock *sk, struct sockmeta_tcp *tcp, __u64 owner,
				       __u32 byte, struct found *f)
{
	struct sockmeta_spills *spills = bpf_sk_storage_get(&sockmeta_spill, sk, 0, 0);

	search(tcp, spills, owner, byte, f);
	if (spills)
		return;
	spills = bpf_sk_storage_get(&sockmeta_spill, sk, 0, 0);
	if (spills)
		search(tcp, spills, owner, byte, f);
}

/* The segment that brought the last byte that the application read. */
static __always_inline int get_read(struct bpf_sockopt *ctx, const struct sockmeta_sk *st,
				    struct sockmeta_tcp *tcp)
{
	struct sockmeta_cell *cell;
	struct found f = {};
	struct tcp_view v;
	__u16 flags;
	__u32 byte;

	look_at(ctx->sk, &v);
	byte = last_read(&v);
	if (byte == tcp->unread && !tcp->has_read)
		return refuse(-ENODATA);
	f.read = v.copied_seq;
	search_log(ctx->sk, tcp, st->id, byte, &f);
	forget_read(tcp, v.copied_seq);
	flags = doubts(tcp, byte, &f);
	if (!f.segments && flags)
		return refuse(-ENODATA);
	note_diverted(tcp, ctx->sk);
	if (tcp->diverted || is_shifted(tcp, byte, &v) || in_range(read_seq(&tcp->urgent), byte))
		flags |= SOCKMETA_F_UNPROVEN;
	if (!f.segments || f.lost)
		return refuse(-EOVERFLOW);
	if (f.handle)
		return get_moved(ctx, f.handle, flags);
	cell = &tcp->ring[(f.first - FIRST_SEQ) & (SOCKMETA_TCP_RING - 1)];
	return get_cell(ctx, cell, f.first, flags);
}

/* A segment was taken for certain if its last byte was delivered, and can have come
 * with no other. What an acknowledgement did to the socket cannot be seen.
 */
static __always_inline int get_latest(struct bpf_sockopt *ctx, const struct sockmeta_sk *st,
				      struct sockmeta_tcp *tcp)
{
	__u64 latest = tcp->latest;
	struct sockmeta_cell *cell;
	struct found f = {};
	struct tcp_view v;
	__u16 flags;
	__u32 end;

	if (!latest)
		return get_newest(ctx, &tcp->control,
				  tcp->newer || tcp->control.doubtful ? SOCKMETA_F_UNPROVEN : 0);
	cell = &tcp->ring[(latest - 1) & (SOCKMETA_TCP_RING - 1)];
	look_at(ctx->sk, &v);
	end = load(cell->end);
	f.read = v.copied_seq;
	search_log(ctx->sk, tcp, st->id, end - 1, &f);
	flags = doubts(tcp, end - 1, &f);
	if (f.lost || !f.segments || tcp->newer || after(end, v.rcv_nxt))
		flags |= SOCKMETA_F_UNPROVEN;
	return get_cell(ctx, cell, FIRST_SEQ + latest - 1, flags);
}

static __always_inline int get_timestamping(struct bpf_sockopt *ctx, const struct sockmeta_sk *st)
{
	__u32 *flags = ctx->optval;

	if (ctx->retval || st->protocol != IPPROTO_UDP || (void *)(flags + 1) > ctx->optval_end)
		return 1;
	if (*flags)
		*flags = st->tsflags;
	return 1;
}

SEC("cgroup/getsockopt")
int sockmeta_getsockopt(struct bpf_sockopt *ctx)
{
	struct sockmeta_tcp *tcp;
	struct sockmeta_sk *st;

	if ((ctx->level != SOL_BPF && !is_timestamping(ctx)) || !ctx->sk)
		return 1;
	st = bpf_sk_storage_get(&sockmeta_sks, ctx->sk, 0, 0);
	if (!st)
		return 1;
	if (ctx->level == SOL_SOCKET)
		return get_timestamping(ctx, st);
	if (ctx->optname == SOCKMETA_OPT_INFO)
		return get_info(ctx);
	if (ctx->optname == SOCKMETA_OPT_TX_INFO)
		return get_tx_info(ctx, st);
	if ((ctx->optname & ~SOCKMETA_INDEX_MASK) == SOCKMETA_OPT_SLOT)
		return get_slot(ctx, st);
	if (ctx->optname < SOCKMETA_OPT_TCP_READ || ctx->optname > SOCKMETA_OPT_TCP_LATEST)
		return 1;
	tcp = bpf_sk_storage_get(&sockmeta_tcps, ctx->sk, 0, 0);
	/* tcp_disconnect() has forgotten the peer, and counts all as read. Another peer may
	 * be set without a call of sockops until the first write (TCP_FASTOPEN_CONNECT).
	 */
	if (!tcp || !tcp->established || !ctx->sk->dst_port || ctx->sk->state == BPF_TCP_SYN_SENT)
		return refuse(-ENODATA);
	if (ctx->optname == SOCKMETA_OPT_TCP_OPENING)
		return get_opening(ctx, tcp);
	if (ctx->optname == SOCKMETA_OPT_TCP_LATEST)
		return get_latest(ctx, st, tcp);
	return get_read(ctx, st, tcp);
}

/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * How many sockets may have storage. The kernel charges what is kept at sockets to
 * the memory cgroup of the process that attached, and any application may open
 * sockets: so each takes a seat, of which a user has so many, and the attachment.
 *
 * A socket holds one seat, whatever is kept for it. It is given back once, when:
 *  - the last descriptor is closed (release.bpf.c), if nothing of a connection goes
 *    on behind it;
 *  - a connection that nobody holds has ended: closed before, or never accepted.
 *    What is not accepted has its storage deleted, too, as it may wait for longer.
 *
 * The kernel frees what it kept a while later: after an RCU grace period, and not
 * before the socket's last packet has left. Nothing tells us when. So a seat that was
 * given back counts for some seconds more, and for longer if packets were on their way.
 */
#ifndef SOCKMETA_BOUNDS_H
#define SOCKMETA_BOUNDS_H

#include "kfuncs.h"
#include "maps.h"
#include <linux/errno.h>
#include <linux/in.h>

/* Not cloned: what a listener holds is not its children's. */
struct sockmeta_seat {
	__u32 held;		/* 1 + index in users; 0: given back, or not taken yet */
	__u32 released;		/* no descriptor is left, */
	__u32 closed;		/* and no connection; what comes second gives back */
	__u32 reserved;
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct sockmeta_seat);
} sockmeta_seats SEC(".maps");

/* Seats that were given back, in this time and in the one before: the times' number
 * (24 bits), and how many in the earlier and in the later one (20 bits each).
 */
#define CLOSING_BITS 20
#define CLOSING_MAX ((1U << CLOSING_BITS) - 1)

/* How long a time is, as a shift of ns: about 1 s. With packets on their way it is 8 s:
 * a neighbour's queue is emptied after 3, and fq's horizon is 10.
 */
#define CLOSED 0
#define CLOSED_SENDING 1

struct sockmeta_user {
	/* The user is in the upper half and the number of his seats in the lower one, so
	 * that both change at once. With none, and none closing, it is anybody's.
	 */
	__u64 seats;
	__u64 closing[2];
};

#define USER_PLACES 8

/* All whose places others have, together. */
#define OTHER_USERS SOCKMETA_USERS

struct sockmeta_room {
	__u64 sockets;
	__u64 closing[2];
	struct sockmeta_user users[SOCKMETA_USERS + 1];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sockmeta_room);
} sockmeta_rooms SEC(".maps");

static __always_inline __u32 user_place(__u32 uid, __u32 i)
{
	return ((uid * 2654435761U >> 16) + i) & (SOCKMETA_USERS - 1);
}

/* The owner of the socket's inode: fchown() changes it, but for root alone. */
static __always_inline __u32 uid_of(const void *given)
{
	struct sock *sk;

	if (!ksym_exists(bpf_rdonly_cast)) {
		sk = kernel_address(given);
		return BPF_CORE_READ(sk, sk_uid.val);
	}
	sk = bpf_rdonly_cast(given, bpf_core_type_id_kernel(struct sock));
	return sk->sk_uid.val;
}

static __always_inline __u32 closing_time(__u32 how)
{
	return bpf_ktime_get_ns() >> (how == CLOSED ? 30 : 33) & 0xffffff;
}

static __always_inline __u32 closing_of(__u64 word, __u32 how)
{
	__u32 ago = (closing_time(how) - (__u32)(word >> 2 * CLOSING_BITS)) & 0xffffff;
	__u32 later = word & CLOSING_MAX, earlier = word >> CLOSING_BITS & CLOSING_MAX;

	return ago == 0 ? earlier + later : ago == 1 ? later : 0;
}

static __always_inline __u32 all_closing(const __u64 *closing)
{
	return closing_of(*(volatile __u64 *)&closing[CLOSED], CLOSED) +
	       closing_of(*(volatile __u64 *)&closing[CLOSED_SENDING], CLOSED_SENDING);
}

#define CLOSING_TRIES 8

static __always_inline void add_closing(__u64 *word, __u32 how)
{
	__u32 now = closing_time(how), ago, i;
	__u64 old, later, earlier;

	for (i = 0; i < CLOSING_TRIES; i++) {
		old = *(volatile __u64 *)word;
		ago = (now - (__u32)(old >> 2 * CLOSING_BITS)) & 0xffffff;
		later = old & CLOSING_MAX;
		earlier = ago == 0 ? old >> CLOSING_BITS & CLOSING_MAX : ago == 1 ? later : 0;
		if (ago)
			later = 0;
		if (later < CLOSING_MAX)
			later++;
		if (__sync_val_compare_and_swap(word, old,
						(__u64)now << 2 * CLOSING_BITS |
						earlier << CLOSING_BITS | later) == old)
			return;
	}
	/* of whichever time it is that others have put there */
	__sync_fetch_and_add(word, 1);
}

/* Adds to a word that is the user's. It may become another's meanwhile. */
static __always_inline int add_to_user(struct sockmeta_user *u, __u32 uid, __u32 max)
{
	__u64 old;

	if (*(volatile __u64 *)&u->seats >> 32 != uid)
		return 0;
	old = __sync_fetch_and_add(&u->seats, 1);
	if (old >> 32 == uid && (__u32)old + all_closing(u->closing) < max)
		return 1;
	__sync_fetch_and_sub(&u->seats, 1);
	return old >> 32 == uid ? -EDQUOT : 0;
}

static __always_inline void leave_room(struct sockmeta_room *room, __u32 at)
{
	if (at > OTHER_USERS)
		return;
	__sync_fetch_and_sub(&room->users[at].seats, 1);
	__sync_fetch_and_sub(&room->sockets, 1);
}

/* One more socket of the user's. Returns the index in users, or a negative error. */
static __noinline int enter_room(__u32 uid)
{
	struct sockmeta_instance *inst = this_instance();
	struct sockmeta_room *room;
	struct sockmeta_user *u;
	__u32 zero = 0, at, i;
	__u64 old;
	int err;

	room = bpf_map_lookup_elem(&sockmeta_rooms, &zero);
	if (!room || !inst)
		return -ENOMEM;
	for (i = 0; i < USER_PLACES; i++) {
		at = user_place(uid, i);
		err = add_to_user(&room->users[at], uid, inst->bounds.per_user);
		if (err < 0)
			return err;
		if (err)
			goto found;
	}
	for (i = 0; i < USER_PLACES; i++) {
		at = user_place(uid, i);
		u = &room->users[at];
		old = *(volatile __u64 *)&u->seats;
		if (!(__u32)old && !all_closing(u->closing) &&
		    __sync_val_compare_and_swap(&u->seats, old, (__u64)uid << 32 | 1) == old)
			goto found;
	}
	at = OTHER_USERS;
	u = &room->users[at];
	if ((__u32)__sync_fetch_and_add(&u->seats, 1) + all_closing(u->closing) >=
	    inst->bounds.per_user) {
		__sync_fetch_and_sub(&u->seats, 1);
		return -EDQUOT;
	}
found:
	if (__sync_fetch_and_add(&room->sockets, 1) + all_closing(room->closing) <
	    inst->bounds.sockets)
		return at;
	leave_room(room, at);
	return -ENFILE;
}

/* how is CLOSED or CLOSED_SENDING. */
static __always_inline void give_back(struct sockmeta_seat *seat, __u32 how)
{
	struct sockmeta_room *room;
	__u32 held, at, zero = 0;

	held = __sync_lock_test_and_set(&seat->held, 0);
	room = bpf_map_lookup_elem(&sockmeta_rooms, &zero);
	if (!held || !room)
		return;
	at = held - 1;
	if (at > OTHER_USERS)
		return;
	how &= 1;
	/* in this order, or others could have it in between */
	add_closing(&room->closing[how], how);
	add_closing(&room->users[at].closing[how], how);
	leave_room(room, at);
}

/* Returns 0 where the socket holds a seat, or a negative error. */
static __always_inline int take_seat(struct bpf_sock *sk)
{
	struct sockmeta_seat *seat = bpf_sk_storage_get(&sockmeta_seats, sk, 0, 0);
	struct sockmeta_room *room;
	__u32 zero = 0;
	int at;

	if (seat && seat->held)
		return 0;
	at = enter_room(uid_of(sk));
	if (at == -ENFILE)
		count(full);
	else if (at == -EDQUOT)
		count(user_full);
	if (at < 0)
		return at;
	seat = bpf_sk_storage_get(&sockmeta_seats, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	/* another task has made it meanwhile */
	if (!seat)
		seat = bpf_sk_storage_get(&sockmeta_seats, sk, 0, 0);
	if (seat && !__sync_val_compare_and_swap(&seat->held, 0, at + 1))
		return 0;
	room = bpf_map_lookup_elem(&sockmeta_rooms, &zero);
	if (room)
		leave_room(room, at);
	return seat ? 0 : -ENOMEM;
}

#endif

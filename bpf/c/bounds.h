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

#define USER_PLACES 8

/* A word has the user in its upper half and the number of his seats in the lower
 * one, so that both change at once. 0 seats: the word is anybody's.
 */
struct sockmeta_room {
	__u64 sockets;
	__u64 users[SOCKMETA_USERS];
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

/* Adds to a word that is the user's. It may become another's meanwhile. */
static __always_inline int add_to_user(__u64 *word, __u32 uid, __u32 max)
{
	__u64 old;

	if (*(volatile __u64 *)word >> 32 != uid)
		return 0;
	old = __sync_fetch_and_add(word, 1);
	if (old >> 32 == uid && (__u32)old < max)
		return 1;
	__sync_fetch_and_sub(word, 1);
	return old >> 32 == uid ? -EDQUOT : 0;
}

static __always_inline void leave_room(struct sockmeta_room *room, __u32 at)
{
	__sync_fetch_and_sub(&room->users[at & (SOCKMETA_USERS - 1)], 1);
	__sync_fetch_and_sub(&room->sockets, 1);
}

/* One more socket of the user's. Returns the index in users, or a negative error. */
static __noinline int enter_room(__u32 uid)
{
	struct sockmeta_instance *inst = this_instance();
	struct sockmeta_room *room;
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
		old = *(volatile __u64 *)&room->users[at];
		if (!(__u32)old && __sync_val_compare_and_swap(&room->users[at], old,
							       (__u64)uid << 32 | 1) == old)
			goto found;
	}
	/* as many other users have sockets as there are places */
	return -EDQUOT;
found:
	if (__sync_fetch_and_add(&room->sockets, 1) < inst->bounds.sockets)
		return at;
	leave_room(room, at);
	return -ENFILE;
}

static __always_inline void give_back(struct sockmeta_seat *seat)
{
	__u32 held = __sync_lock_test_and_set(&seat->held, 0), zero = 0;
	struct sockmeta_room *room = bpf_map_lookup_elem(&sockmeta_rooms, &zero);

	if (held && room)
		leave_room(room, held - 1);
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

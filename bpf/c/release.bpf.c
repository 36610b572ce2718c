// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/*
 * cgroup/sock_release: runs when the last descriptor of a socket is closed, in front
 * of what closes the connection (inet_release in net/ipv4/af_inet.c), and gives the
 * socket's seat back (bounds.h).
 */
#include "bounds.h"
#include "sending.h"

#define TCP_CLOSE 7

/* Whether sockops will be told of the connection's end. It is not where the socket
 * opted in when it was connected, on kernels before Linux 6.13, or where somebody
 * else's program has taken the flag away.
 */
static __always_inline int end_is_told(const struct bpf_sock *given)
{
	struct tcp_sock *tp = kernel_address(given);

	return BPF_CORE_READ(tp, bpf_sock_ops_cb_flags) & BPF_SOCK_OPS_STATE_CB_FLAG;
}

SEC("cgroup/sock_release")
int sockmeta_release(struct bpf_sock *sk)
{
	struct sockmeta_seat *seat;

	if (is_bare(sk))
		return 1;
	seat = bpf_sk_storage_get(&sockmeta_seats, sk, 0, 0);
	if (!seat)
		return 1;
	/* Sockops marks the connection's end and then looks for this. */
	__sync_lock_test_and_set(&seat->released, 1);
	if (sk->protocol == IPPROTO_TCP && sk->state != TCP_CLOSE &&
	    !__sync_fetch_and_add(&seat->closed, 0) && end_is_told(sk))
		return 1;
	give_back(seat, is_sending(sk, 0));
	return 1;
}

// SPDX-License-Identifier: GPL-2.0
/* How a cgroup sock_addr program gets at the msghdr of the call that it runs in. */
#include <linux/btf.h>
#include <linux/filter.h>
#include <linux/socket.h>

#include "sockmeta.h"

__bpf_kfunc_start_defs();

/**
 * bpf_sock_addr_msg_acquire - the message that a program is run for
 * @ctx: of a cgroup program of type recvmsg4, recvmsg6, sendmsg4 or sendmsg6
 *
 * The program has to give it back by bpf_msg_release(). No reference is counted: the
 * message is on the stack of the call that runs the program. What is acquired cannot
 * leave it, as maps take no pointers to a type without a destructor.
 *
 * Returns the message, or NULL where the program is not run by such a call, the call
 * began before the module was loaded, or it has nothing to give: a sendmsg() without
 * control messages, a recvfrom(), a socket without storage of a program's.
 */
__bpf_kfunc struct msghdr *bpf_sock_addr_msg_acquire(struct bpf_sock_addr *ctx)
{
	struct bpf_sock_addr_kern *kern = (struct bpf_sock_addr_kern *)ctx;
	struct sockmeta_call *call = sockmeta_call_by_sk(kern->sk);

	/*
	 * The hook is given msg_name itself or, where there is none, an address of
	 * the kernel's.
	 */
	if (!call || (call->msg->msg_name && call->msg->msg_name != (void *)kern->uaddr))
		return NULL;
	return call->msg;
}

/**
 * bpf_msg_release - gives back what bpf_sock_addr_msg_acquire() returned
 * @msg: the message
 */
__bpf_kfunc void bpf_msg_release(struct msghdr *msg)
{
}

__bpf_kfunc_end_defs();

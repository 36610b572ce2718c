// SPDX-License-Identifier: GPL-2.0
/*
 * fprobes, which tell when a task enters and leaves the functions of UDP that have
 * a msghdr. Nothing of the module is on the stack of a task that sleeps in one of
 * them: that is what lets the module go while it does. The functions return through
 * the kernel's trampoline, which asks whether the fprobe is still there:
 *
 * Linux 6.12 (kernel/trace/rethook.c): rethook_stop() takes the handler away, and
 * unregister_ftrace_function() waits until all CPUs have left the sections without
 * preemption in which handlers run. The nodes are the kernel's.
 * Since 6.14 (kernel/trace/fprobe.c): fprobe_return() looks the fprobe up, in such a
 * section, and unregister_fprobe() waits for those. See calls.c for why that is
 * not enough once the module is loaded again.
 *
 * What a hook costs sockets that nobody cares for: on entry it looks at one field of
 * the socket or the message, takes no lock, and asks for no exit.
 *
 * Receiving: a socket is of interest once a BPF program keeps storage for it
 * (BPF_MAP_TYPE_SK_STORAGE), and recvmsg() alone, as recvfrom() and read() take no
 * control messages. Those who ask from within the kernel (NFS, WireGuard) have
 * control buffers in the kernel, if any: they are left alone.
 * Sending: where there are control messages. By then they are in the kernel.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/fprobe.h>
#include <linux/rcupdate.h>
#include <linux/skbuff.h>
#include <linux/socket.h>
#include <net/sock.h>

#include "sockmeta.h"

#define CREATE_TRACE_POINTS
#include "events.h"

/* Since Linux 6.14 fprobes are on top of the function graph tracer. */
#ifdef MAX_FPROBE_DATA_SIZE
#define probe_regs ftrace_regs
#define argument(regs, n) ((void *)ftrace_regs_get_argument(regs, n))
#define returned(regs) ((void *)ftrace_regs_get_return_value(regs))
#else
#define probe_regs pt_regs
#define argument(regs, n) ((void *)regs_get_kernel_argument(regs, n))
#define returned(regs) ((void *)regs_return_value(regs))
#endif

/* What is kept from the entry of a function to its end. */
struct note {
	u64 call;
};

/* Entry handlers return this where there is no need to see the end. */
#define NO_EXIT 1

static int recv_entry(struct fprobe *fp, unsigned long ip, unsigned long ret_ip,
		      struct probe_regs *regs, void *data)
{
	struct sock *sk = argument(regs, 0);
	struct msghdr *msg = argument(regs, 1);
	struct note *note = data;

	if (!rcu_access_pointer(sk->sk_bpf_storage) || !msg->msg_control_is_user)
		return NO_EXIT;
	note->call = sockmeta_call_begin(sk, msg, true);
	return note->call ? 0 : NO_EXIT;
}

static void recv_exit(struct fprobe *fp, unsigned long ip, unsigned long ret_ip,
		      struct probe_regs *regs, void *data)
{
	const struct note *note = data;

	sockmeta_call_end(note->call);
}

/* __skb_recv_udp() is where recvmsg() sleeps, and gets what it receives. */
static int dequeue_entry(struct fprobe *fp, unsigned long ip, unsigned long ret_ip,
			 struct probe_regs *regs, void *data)
{
	struct sock *sk = argument(regs, 0);
	struct sockmeta_call *call;
	struct note *note = data;

	if (!rcu_access_pointer(sk->sk_bpf_storage))
		return NO_EXIT;
	call = sockmeta_call_by_sk(sk);
	if (!call || !call->receives)
		return NO_EXIT;
	note->call = call->id;
	return 0;
}

static void dequeue_exit(struct fprobe *fp, unsigned long ip, unsigned long ret_ip,
			 struct probe_regs *regs, void *data)
{
	const struct note *note = data;
	struct sockmeta_call *call = sockmeta_call_by_id(note->call);

	if (call)
		call->skb = returned(regs);
}

/*
 * What recvmsg() got has a wrong checksum: it frees it and tries again. Else it keeps
 * it until it returns, or at least until it has run its last program.
 */
static int drop_entry(struct fprobe *fp, unsigned long ip, unsigned long ret_ip,
		      struct probe_regs *regs, void *data)
{
	struct sockmeta_call *call = sockmeta_call_by_sk(argument(regs, 0));

	if (call)
		call->skb = NULL;
	return NO_EXIT;
}

static int send_entry(struct fprobe *fp, unsigned long ip, unsigned long ret_ip,
		      struct probe_regs *regs, void *data)
{
	struct sock *sk = argument(regs, 0);
	struct msghdr *msg = argument(regs, 1);
	struct note *note = data;

	if (!msg->msg_controllen || msg->msg_control_is_user)
		return NO_EXIT;
	note->call = sockmeta_call_begin(sk, msg, false);
	if (!note->call)
		return NO_EXIT;
	trace_sockmeta_send(sk, msg);
	return 0;
}

static void send_exit(struct fprobe *fp, unsigned long ip, unsigned long ret_ip,
		      struct probe_regs *regs, void *data)
{
	const struct note *note = data;
	struct sockmeta_call *call = sockmeta_call_by_id(note->call);

	if (!call)
		return;
	trace_sockmeta_sent(call->sk, call->msg);
	sockmeta_call_end(note->call);
}

/*
 * In the order in which they are there: each relies on those before it. What may be
 * missing, where IPv6 is a module that is not loaded, comes last, as it does in the
 * alphabet, by which register_fprobe_syms() sorts.
 */
static struct hook {
	const char *symbols[2];
	int count;
	struct fprobe probe;
} hooks[] = {
	{
		{ "udp_recvmsg", "udpv6_recvmsg" }, 2,
		{ .entry_handler = recv_entry, .exit_handler = recv_exit,
		  .entry_data_size = sizeof(struct note) },
	}, {
		{ "__skb_recv_udp" }, 1,
		{ .entry_handler = dequeue_entry, .exit_handler = dequeue_exit,
		  .entry_data_size = sizeof(struct note) },
	}, {
		/* without an exit handler, so that it is never missed */
		{ "__sk_queue_drop_skb" }, 1,
		{ .entry_handler = drop_entry },
	}, {
		{ "udp_sendmsg", "udpv6_sendmsg" }, 2,
		{ .entry_handler = send_entry, .exit_handler = send_exit,
		  .entry_data_size = sizeof(struct note) },
	},
};

unsigned long sockmeta_hooks_missed(void)
{
	unsigned long missed = 0;
	int i;

	for (i = 0; i < ARRAY_SIZE(hooks); i++)
		missed += hooks[i].probe.nmissed;
	return missed;
}

static void unregister(int count)
{
	while (count--)
		unregister_fprobe(&hooks[count].probe);
	/* unregister_fprobe() has waited for handlers, this is for what they traced */
	tracepoint_synchronize_unregister();
}

int sockmeta_hooks_init(unsigned int most)
{
	int i, err;

	for (i = 0; i < ARRAY_SIZE(hooks); i++) {
#ifndef MAX_FPROBE_DATA_SIZE
		/*
		 * How many ends of functions it can wait for, and for as long as the
		 * entry handler runs for those that do not matter.
		 */
		if (hooks[i].probe.exit_handler)
			hooks[i].probe.nr_maxactive = most + 2 * num_possible_cpus();
#endif
		err = register_fprobe_syms(&hooks[i].probe, hooks[i].symbols, hooks[i].count);
		if (err == -ENOENT && hooks[i].count > 1) {
			pr_notice("no %s: without IPv6\n", hooks[i].symbols[1]);
			err = register_fprobe_syms(&hooks[i].probe, hooks[i].symbols, 1);
		}
		if (err) {
			pr_err("%s: %pe\n", hooks[i].symbols[0], ERR_PTR(err));
			unregister(i);
			return err;
		}
	}
	return 0;
}

void sockmeta_hooks_exit(void)
{
	unregister(ARRAY_SIZE(hooks));
}

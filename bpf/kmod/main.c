// SPDX-License-Identifier: GPL-2.0
/*
 * Gives BPF programs the control messages of UDP's sendmsg() and recvmsg(), by the
 * functions that the talk "Marking Packets With Rich Metadata" (LPC 2024) proposes
 * for the kernel itself. Programs that use one keep the module loaded.
 */
#include <linux/bpf.h>
#include <linux/btf.h>
#include <linux/btf_ids.h>
#include <linux/init.h>
#include <linux/module.h>
#include <linux/moduleparam.h>

#include "sockmeta.h"

/* What all functions ask for since Linux 7.0. */
#ifndef KF_TRUSTED_ARGS
#define KF_TRUSTED_ARGS 0
#endif

static unsigned int calls = 4096;
module_param(calls, uint, 0444);
MODULE_PARM_DESC(calls, "Calls of recvmsg and sendmsg that tasks can be in at once, of those that matter. Further ones go without metadata.");

static int missed_get(char *buf, const struct kernel_param *kp)
{
	return sysfs_emit(buf, "%lu\n", sockmeta_calls_missed() + sockmeta_hooks_missed());
}

static const struct kernel_param_ops missed_ops = { .get = missed_get };
module_param_cb(missed, &missed_ops, NULL, 0444);
MODULE_PARM_DESC(missed, "Calls that went without metadata, as there were more than that at once.");

/* What any program may do that was given a message. */
BTF_KFUNCS_START(message_kfuncs)
BTF_ID_FLAGS(func, bpf_msg_put_cmsg, KF_TRUSTED_ARGS)
BTF_ID_FLAGS(func, bpf_msg_fault_in, KF_TRUSTED_ARGS | KF_SLEEPABLE)
BTF_ID_FLAGS(func, bpf_iter_cmsghdr_new, KF_TRUSTED_ARGS | KF_ITER_NEW)
BTF_ID_FLAGS(func, bpf_iter_cmsghdr_next, KF_ITER_NEXT | KF_RET_NULL)
BTF_ID_FLAGS(func, bpf_iter_cmsghdr_destroy, KF_ITER_DESTROY)
BTF_ID_FLAGS(func, bpf_cmsg_data, KF_TRUSTED_ARGS | KF_RET_NULL)
BTF_ID_FLAGS(func, bpf_cmsg_data_read, KF_TRUSTED_ARGS)
BTF_KFUNCS_END(message_kfuncs)

/*
 * The same, and more: a module has one set for each kind of program. The packet is for
 * those whom UDP runs while it has it. Tracing programs may be run, with the message in
 * their hands, when it has been freed.
 */
BTF_KFUNCS_START(sock_addr_kfuncs)
BTF_ID_FLAGS(func, bpf_msg_put_cmsg, KF_TRUSTED_ARGS)
BTF_ID_FLAGS(func, bpf_msg_fault_in, KF_TRUSTED_ARGS | KF_SLEEPABLE)
BTF_ID_FLAGS(func, bpf_iter_cmsghdr_new, KF_TRUSTED_ARGS | KF_ITER_NEW)
BTF_ID_FLAGS(func, bpf_iter_cmsghdr_next, KF_ITER_NEXT | KF_RET_NULL)
BTF_ID_FLAGS(func, bpf_iter_cmsghdr_destroy, KF_ITER_DESTROY)
BTF_ID_FLAGS(func, bpf_cmsg_data, KF_TRUSTED_ARGS | KF_RET_NULL)
BTF_ID_FLAGS(func, bpf_cmsg_data_read, KF_TRUSTED_ARGS)
BTF_ID_FLAGS(func, bpf_sock_addr_msg_acquire, KF_TRUSTED_ARGS | KF_ACQUIRE | KF_RET_NULL)
BTF_ID_FLAGS(func, bpf_msg_release, KF_RELEASE)
BTF_ID_FLAGS(func, bpf_msg_skb_acquire, KF_TRUSTED_ARGS | KF_ACQUIRE | KF_RET_NULL)
BTF_ID_FLAGS(func, bpf_msg_skb_release, KF_RELEASE)
BTF_ID_FLAGS(func, bpf_skb_meta_read, KF_TRUSTED_ARGS)
BTF_KFUNCS_END(sock_addr_kfuncs)

static const struct btf_kfunc_id_set message_set = {
	.owner = THIS_MODULE,
	.set = &message_kfuncs,
};

static const struct btf_kfunc_id_set sock_addr_set = {
	.owner = THIS_MODULE,
	.set = &sock_addr_kfuncs,
};

static int __init sockmeta_init(void)
{
	int err;

	err = sockmeta_calls_init(calls);
	if (err)
		return err;
	err = sockmeta_hooks_init(calls);
	if (err)
		goto err_calls;
	/*
	 * Last: programs can use the functions from here on. They stay registered with
	 * the module's BTF, which goes when the module does.
	 */
	err = register_btf_kfunc_id_set(BPF_PROG_TYPE_CGROUP_SOCK_ADDR, &sock_addr_set);
	if (err)
		goto err_hooks;
	/* and of LSM, which share them */
	err = register_btf_kfunc_id_set(BPF_PROG_TYPE_TRACING, &message_set);
	if (err)
		goto err_hooks;
	return 0;

err_hooks:
	sockmeta_hooks_exit();
err_calls:
	sockmeta_calls_exit();
	return err;
}

static void __exit sockmeta_exit(void)
{
	sockmeta_hooks_exit();
	sockmeta_calls_exit();
}

module_init(sockmeta_init);
module_exit(sockmeta_exit);
MODULE_SOFTDEP("pre: ipv6");
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Control messages of UDP sockets for BPF programs");

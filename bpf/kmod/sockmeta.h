/* SPDX-License-Identifier: GPL-2.0 */
/* What the files of the module have of each other. */
#ifndef SOCKMETA_KMOD_H
#define SOCKMETA_KMOD_H

#include <linux/btf.h>
#include <linux/types.h>

struct bpf_sock_addr;
struct cmsghdr;
struct msghdr;
struct sk_buff;
struct sock;
struct task_struct;

#define SOL_BPF 0xEB9F

/*
 * A sendmsg() or recvmsg() of UDP that a task is in. Its sk, msg and skb live at
 * least as long as the task stays in that function, and only that task looks at
 * them, through calls.c.
 */
struct sockmeta_call {
	struct hlist_node node;
	const struct task_struct *task;
	u64 id;
	struct sock *sk;
	struct msghdr *msg;
	/* what recvmsg() took from the queue, NULL before */
	struct sk_buff *skb;
	bool receives;
};

/* calls.c */
int sockmeta_calls_init(unsigned int most);
void sockmeta_calls_exit(void);
u64 sockmeta_call_begin(struct sock *sk, struct msghdr *msg, bool receives);
void sockmeta_call_end(u64 id);
struct sockmeta_call *sockmeta_call_by_id(u64 id);
struct sockmeta_call *sockmeta_call_by_sk(const struct sock *sk);
struct sockmeta_call *sockmeta_call_by_msg(const struct msghdr *msg);
unsigned long sockmeta_calls_missed(void);

/* hooks.c */
int sockmeta_hooks_init(unsigned int most);
void sockmeta_hooks_exit(void);
unsigned long sockmeta_hooks_missed(void);

/* The functions for programs: msg.c, put.c, walk.c, skb.c */
struct bpf_iter_cmsghdr {
	u64 __opaque[2];
} __aligned(8);

struct msghdr *bpf_sock_addr_msg_acquire(struct bpf_sock_addr *ctx);
void bpf_msg_release(struct msghdr *msg);
int bpf_msg_put_cmsg(struct msghdr *msg, int level, int type, void *data, u32 data__sz);
int bpf_msg_fault_in(struct msghdr *msg);
int bpf_iter_cmsghdr_new(struct bpf_iter_cmsghdr *it, struct msghdr *msg);
struct cmsghdr *bpf_iter_cmsghdr_next(struct bpf_iter_cmsghdr *it);
void bpf_iter_cmsghdr_destroy(struct bpf_iter_cmsghdr *it);
u8 *bpf_cmsg_data(struct cmsghdr *cmsg, const int rdonly_buf_size);
int bpf_cmsg_data_read(struct cmsghdr *cmsg, u32 off, void *buf, u32 buf__sz);
struct sk_buff *bpf_msg_skb_acquire(struct msghdr *msg);
void bpf_msg_skb_release(struct sk_buff *skb);
int bpf_skb_meta_read(struct sk_buff *skb, void *buf, u32 buf__sz);

#endif

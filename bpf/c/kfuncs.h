/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * The kernel's own structs behind what programs are given. Linux 6.2 has kernel
 * functions for that, which make typed pointers: ask ksym_exists() before a call.
 * On older kernels it takes kernel_address(), and BPF_CORE_READ() for each field.
 */
#ifndef SOCKMETA_KFUNCS_H
#define SOCKMETA_KFUNCS_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

/* Linux 6.2 */
extern void *bpf_cast_to_kern_ctx(void *obj) __ksym __weak;
extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __ksym __weak;

/*
 * The talk's, in no released kernel: from bpf/kmod, or one day the kernel's own.
 */
struct bpf_iter_cmsghdr {
	__u64 __opaque[2];
} __attribute__((aligned(8)));

extern struct msghdr *bpf_sock_addr_msg_acquire(struct bpf_sock_addr *ctx) __ksym __weak;
extern void bpf_msg_release(struct msghdr *msg) __ksym __weak;
extern int bpf_msg_put_cmsg(struct msghdr *msg, int level, int type, void *data,
			    __u32 data__sz) __ksym __weak;
extern int bpf_msg_fault_in(struct msghdr *msg) __ksym __weak;
extern int bpf_iter_cmsghdr_new(struct bpf_iter_cmsghdr *it, struct msghdr *msg) __ksym __weak;
extern struct cmsghdr *bpf_iter_cmsghdr_next(struct bpf_iter_cmsghdr *it) __ksym __weak;
extern void bpf_iter_cmsghdr_destroy(struct bpf_iter_cmsghdr *it) __ksym __weak;
extern __u8 *bpf_cmsg_data(struct cmsghdr *cmsg, const int rdonly_buf_size) __ksym __weak;
extern int bpf_cmsg_data_read(struct cmsghdr *cmsg, __u32 off, void *buf,
			      __u32 buf__sz) __ksym __weak;
extern struct sk_buff *bpf_msg_skb_acquire(struct msghdr *msg) __ksym __weak;
extern void bpf_msg_skb_release(struct sk_buff *skb) __ksym __weak;
extern int bpf_skb_meta_read(struct sk_buff *skb, void *buf, __u32 buf__sz) __ksym __weak;

/* As libbpf has it since 1.2, for kernel functions of that name. */
#define for_each(type, cur, args...)						\
	for (struct bpf_iter_##type it_ __attribute__((aligned(8),			\
						       cleanup(bpf_iter_##type##_destroy))), \
	     *p_ __attribute__((unused)) = (bpf_iter_##type##_new(&it_, ##args),	\
		     (void)bpf_iter_##type##_destroy, (void *)0);			\
	     ((cur) = bpf_iter_##type##_next(&it_));)

#define ksym_exists(sym) (!!(void *)(sym))

/*
 * Where a struct __sk_buff or a struct bpf_sock really lies: what the program
 * holds is the address of the kernel's struct, and the verifier puts in each
 * field's place as the field is loaded. It lets nobody calculate with such a
 * pointer, but whoever may read kernel memory may read where it was spilled to.
 */
static __always_inline void *kernel_address(const void *given)
{
	void *addr = 0;

	bpf_probe_read_kernel(&addr, sizeof(addr), &given);
	return addr;
}

/* The cookie of the namespace that a socket is in. */
static __always_inline __u64 netns_of(const void *given)
{
	struct sock *sk = kernel_address(given);

	return BPF_CORE_READ(sk, __sk_common.skc_net.net, net_cookie);
}

/* Typed on kernels that can; else BPF_CORE_READ() alone gets at its fields. */
static __always_inline struct sk_buff *kernel_skb(struct __sk_buff *ctx)
{
	if (ksym_exists(bpf_cast_to_kern_ctx))
		return bpf_cast_to_kern_ctx(ctx);
	return kernel_address(ctx);
}

/* Whether no program has anything of the socket's. Looking for that costs other
 * sockets' packets several times what this does.
 */
static __always_inline int is_bare(struct bpf_sock *given)
{
	struct sock *sk;

	if (!ksym_exists(bpf_rdonly_cast))
		return 0;
	sk = bpf_rdonly_cast(given, bpf_core_type_id_kernel(struct sock));
	return !sk->sk_bpf_storage;
}

#endif

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

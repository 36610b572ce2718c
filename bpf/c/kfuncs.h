/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/* Kernel functions that older kernels lack: ask ksym_exists() before a call. */
#ifndef SOCKMETA_KFUNCS_H
#define SOCKMETA_KFUNCS_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

/* Linux 6.2 */
extern void *bpf_cast_to_kern_ctx(void *obj) __ksym __weak;
extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __ksym __weak;

#define ksym_exists(sym) (!!(void *)(sym))

#endif

// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/*
 * All programs of an attachment, in one object, so that they share their maps. The
 * loader takes what the kernel can run (bpf/object_linux.go).
 */
#include "ingress.bpf.c"
#include "egress.bpf.c"
#include "sockopt.bpf.c"
#include "sockops.bpf.c"
#include "release.bpf.c"
#include "tracing.bpf.c"
#include "native.bpf.c"
#include "local.bpf.c"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

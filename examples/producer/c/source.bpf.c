// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/*
 * A producer with a key of its own: the application gets the Ethernet address that each
 * packet came from, which no socket tells.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_helpers.h>
#include <sockmeta.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Same number as in main_linux.go. Keys from SOCKMETA_KEY_USER to 127 are yours. */
#define KEY_SOURCE SOCKMETA_KEY_USER	/* 6 bytes */

/* Packets that went on without, as there was no room in front of them. */
__u64 refused;

SEC("xdp")
int put_source(struct xdp_md *ctx)
{
	struct ethhdr *eth = (void *)(long)ctx->data;
	__u8 source[ETH_ALEN];

	if ((void *)(eth + 1) > (void *)(long)ctx->data_end)
		return XDP_PASS;
	/* a copy: sockmeta_put() invalidates pointers into the packet */
	__builtin_memcpy(source, eth->h_source, sizeof(source));
	if (sockmeta_put(ctx, KEY_SOURCE, source, sizeof(source)))
		__sync_fetch_and_add(&refused, 1);
	return XDP_PASS;
}

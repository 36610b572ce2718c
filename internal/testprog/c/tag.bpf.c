// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/*
 * A producer for tests that write frames themselves: the last four bytes of the
 * source address, the sender's number of the frame, become its metadata.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_helpers.h>
#include "../../../bpf/include/sockmeta.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Same number as in doc.go. */
#define KEY_TAG 20 /* u32 */

/* Frames that went on without metadata. */
__u64 refused;

SEC("xdp")
int tag_frame(struct xdp_md *ctx)
{
	struct ethhdr *eth = (void *)(long)ctx->data;
	__u32 tag;

	if ((void *)(eth + 1) > (void *)(long)ctx->data_end)
		return XDP_PASS;
	__builtin_memcpy(&tag, eth->h_source + 2, sizeof(tag));
	if (sockmeta_put(ctx, KEY_TAG, &tag, sizeof(tag)))
		__sync_fetch_and_add(&refused, 1);
	return XDP_PASS;
}

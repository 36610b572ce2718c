// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/* Every function of sockmeta.h, as the programs of others would use them. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#include "../../../bpf/include/sockmeta.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* What each call returned, in order of the calls. */
__s64 results[8];

/* An XDP program that puts values of several sizes, and one key twice. */
SEC("xdp")
int put_values(struct xdp_md *ctx)
{
	__u8 small = 1;
	__u16 medium = 0x0202;
	__u32 word = 0x03030303;
	__u8 odd[5] = { 5, 5, 5, 5, 5 };
	__u64 big = 0x0808080808080808;

	results[0] = sockmeta_put(ctx, 16, &word, sizeof(word));
	results[1] = sockmeta_put(ctx, 17, &medium, sizeof(medium));
	results[2] = sockmeta_put(ctx, 18, &odd, sizeof(odd));
	results[3] = sockmeta_put(ctx, 19, &big, sizeof(big));
	results[4] = sockmeta_put(ctx, 16, &small, sizeof(small));
	results[5] = sockmeta_put(ctx, 20, &small, 0);
	results[6] = sockmeta_put_area(ctx, SOCKMETA_FORMAT_RAW, &big, sizeof(big));
	return XDP_PASS;
}

/* So many that they fit into the smallest areas that there are, with the seal. */
SEC("xdp")
int put_few(struct xdp_md *ctx)
{
	__u8 small = 1;
	__u16 medium = 0x0202;
	__u32 word = 0x03030303;

	results[0] = sockmeta_put(ctx, 16, &word, sizeof(word));
	results[1] = sockmeta_put(ctx, 17, &medium, sizeof(medium));
	results[2] = sockmeta_put(ctx, 16, &small, sizeof(small));
	return XDP_PASS;
}

SEC("xdp")
int put_area(struct xdp_md *ctx)
{
	struct {
		__u32 service;
		__u32 zone;
	} area = { 7, 9 };

	results[0] = sockmeta_put_area(ctx, SOCKMETA_FORMAT_STRUCT, &area, sizeof(area));
	return XDP_PASS;
}

/* Puts until there is no room. */
SEC("xdp")
int put_until_full(struct xdp_md *ctx)
{
	__u8 value[30] = {};
	int i, err;

	for (i = 0; i < 10; i++) {
		value[0] = i;
		err = sockmeta_put(ctx, 16 + i, value, sizeof(value));
		if (err) {
			results[1] = err;
			break;
		}
	}
	results[0] = i;
	return XDP_PASS;
}

/* A TC program behind put_few: reads one value, changes another. */
SEC("tc")
int change_value(struct __sk_buff *skb)
{
	void *meta = (void *)(long)skb->data_meta, *data = (void *)(long)skb->data;
	__u8 *first = sockmeta_find(meta, data, 16, sizeof(*first));
	__u16 *medium = sockmeta_find(meta, data, 17, sizeof(*medium));

	if (first && medium)
		*medium += *first;
	/* the first occurrence of 16 has another length */
	results[7] = !sockmeta_find(meta, data, 16, sizeof(__u32)) &&
		     !sockmeta_find(meta, data, 99, 1);
	return TC_ACT_OK;
}

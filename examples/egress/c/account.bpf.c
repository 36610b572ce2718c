// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/*
 * A TC egress program that reads what applications give their packets: it counts what
 * leaves an interface, by the number of a zone that the application says.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#include <sockmeta_tx.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Same number as in main_linux.go. */
#define KEY_ZONE 16	/* u32 */

struct traffic {
	__u64 packets;
	__u64 bytes;
};

/* By zone. 0 is for packets without one, and for those of zones that found no place:
 * applications choose the numbers.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, struct traffic);
} zones SEC(".maps");

static __always_inline struct traffic *traffic_of(__u32 zone)
{
	struct traffic none = {}, *t;

	t = bpf_map_lookup_elem(&zones, &zone);
	if (t)
		return t;
	bpf_map_update_elem(&zones, &zone, &none, BPF_NOEXIST);
	return bpf_map_lookup_elem(&zones, &zone);
}

SEC("tc")
int account(struct __sk_buff *skb)
{
	struct traffic *t;
	__u32 zone;

	if (sockmeta_tx_get(skb, KEY_ZONE, &zone, sizeof(zone)))
		zone = 0;
	t = traffic_of(zone);
	if (!t)
		t = traffic_of(0);
	if (t) {
		__sync_fetch_and_add(&t->packets, 1);
		__sync_fetch_and_add(&t->bytes, skb->len);
	}
	/* other programs decide on the packet */
	return TC_ACT_UNSPEC;
}

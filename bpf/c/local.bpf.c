// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/*
 * TC ingress of a device whose packets come from sockets of this host: lets
 * their metadata through to the receiver, see local.h. Anybody can put any
 * number into skb->tstamp (SCM_TXTIME), so a number counts for nothing unless
 * the packet is from the other end of the device, and of the flow that the slot
 * was filled for: other namespaces may have the same addresses. Sockets that
 * have not opted in get no mark: it would show in their timestamps.
 */
#include "local.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define TCX_NEXT -1

static __always_inline int receiver_opted_in(struct __sk_buff *ctx, const struct sockmeta_flow *f)
{
	struct bpf_sock_tuple t = {};
	struct bpf_sock *sk;
	__u32 size;
	int yes;

	if (ctx->protocol == bpf_htons(ETH_P_IP)) {
		t.ipv4.saddr = f->local[3];
		t.ipv4.daddr = f->remote[3];
		t.ipv4.sport = bpf_htons(f->local_port);
		t.ipv4.dport = bpf_htons(f->remote_port);
		size = sizeof(t.ipv4);
	} else {
		__builtin_memcpy(t.ipv6.saddr, f->local, 16);
		__builtin_memcpy(t.ipv6.daddr, f->remote, 16);
		t.ipv6.sport = bpf_htons(f->local_port);
		t.ipv6.dport = bpf_htons(f->remote_port);
		size = sizeof(t.ipv6);
	}
	if (f->listener == IPPROTO_UDP)
		sk = bpf_sk_lookup_udp(ctx, &t, size, BPF_F_CURRENT_NETNS, 0);
	else
		sk = bpf_sk_lookup_tcp(ctx, &t, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return 0;
	yes = !!bpf_sk_storage_get(&sockmeta_sks, sk, 0, 0);
	bpf_sk_release(sk);
	return yes;
}

/* Whether the record left by the other end of this device. */
static __always_inline int from_other_end(const struct sockmeta_local *slot,
					  const struct sockmeta_local_dev *dev)
{
	struct sockmeta_local_dev here = *dev;
	__u32 *other_end = bpf_map_lookup_elem(&sockmeta_local_devs, &here);

	if (!other_end)
		return 0;
	if (!*other_end)
		return !slot->other_end && slot->dev.ifindex == dev->ifindex &&
		       slot->dev.netns == dev->netns;
	return slot->dev.ifindex == *other_end && slot->other_end == dev->ifindex;
}

SEC("tcx/ingress")
int sockmeta_local(struct __sk_buff *ctx)
{
	struct sockmeta_local_dev dev = {};
	struct sockmeta_flow flow = {};
	__u64 number = ctx->tstamp;
	struct sockmeta_local *slot;

	/* times of reception and far launch times are none of ours */
	if (ctx->tstamp_type != BPF_SKB_TSTAMP_DELIVERY_MONO || !number || number >= SOCKMETA_TX_END)
		return TCX_NEXT;
	device_of(ctx, &dev);
	slot = local_slot(number);
	if (!slot || read_seq(&slot->seq) != number || !from_other_end(slot, &dev) ||
	    !flow_of_packet(ctx, &flow) || !same_flow(&slot->flow, &flow) ||
	    read_seq(&slot->seq) != number || !receiver_opted_in(ctx, &flow))
		return TCX_NEXT;
	slot->arrived = dev.netns;
	/* from now on it is a time of reception, which the kernel leaves alone */
	bpf_skb_set_tstamp(ctx, SOCKMETA_LOCAL_MARK | number, BPF_SKB_TSTAMP_UNSPEC);
	return TCX_NEXT;
}

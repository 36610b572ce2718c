// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/*
 * The product's own functions, each on input that a fuzz test made up: on the
 * packet of BPF_PROG_TEST_RUN, or on what the test has put into input. What
 * they made of it is in output, for the test to compare with what it expects.
 */
/* Not every one of them is called. */
#pragma clang diagnostic ignored "-Wunused-function"
#include "../../../bpf/c/cross.h"
#include "../../../bpf/c/record.h"
#include "../../../bpf/c/tcp.h"
#include "../../../bpf/c/tx.h"
#include "../../../bpf/include/sockmeta_cmsg.h"
#include <linux/pkt_cls.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* What parse_segment(), flow_of_packet() and sockmeta_tx_whole() say. */
struct fuzz_packet {
	__u32 is_segment;
	__u32 is_flow;
	__u32 whole_tcp;
	__u32 whole_udp;
	struct sockmeta_flow segment;
	struct sockmeta_flow flow;
	__u32 start;
	__u32 end;
	__u32 ack_seq;
	__u8 syn;
	__u8 ack;
	__u8 fin;
	__u8 pad;
};

struct fuzz_packet packet;

/* Not cgroup_skb, for which test runs set no data_end on Linux 6.1 and 6.12
 * (bpf_prog_test_run_skb in net/bpf/test_run.c). These programs, too, get the
 * packet from the network header on.
 */
SEC("lwt_in")
int fuzz_segment(struct __sk_buff *ctx)
{
	struct segment seg = {};

	packet.is_segment = parse_segment(ctx, &seg);
	packet.segment = seg.flow;
	packet.start = seg.start;
	packet.end = seg.end;
	packet.ack_seq = seg.ack_seq;
	packet.syn = seg.syn;
	packet.ack = seg.ack;
	packet.fin = seg.fin;
	return 1;
}

SEC("cgroup_skb/ingress")
int fuzz_packet(struct __sk_buff *ctx)
{
	struct sockmeta_flow flow = {};

	packet.is_flow = flow_of_packet(ctx, &flow);
	packet.flow = flow;
	packet.whole_tcp = sockmeta_tx_whole(ctx, IPPROTO_TCP);
	packet.whole_udp = sockmeta_tx_whole(ctx, IPPROTO_UDP);
	return 1;
}

/* A record on its way from a sender to a receiver on this host, and what the
 * receiver's record holds of a producer's.
 */
struct fuzz_local {
	struct sockmeta_sent sent;
	struct sockmeta_policy policy;
	__u64 number;		/* of the slot that it crosses in, */
	__u64 asked;		/* and the one that the packet says */
	__u32 crossed;		/* what cross() returned, */
	__u32 put;		/* and put_sender() */
	__u32 strayed;		/* whether the packet came to another namespace */
	__u32 pad;
	struct sockmeta_local slot;
	struct sockmeta_record rec;
	__u8 spare[SOCKMETA_SPARE];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct fuzz_local);
} local SEC(".maps");

SEC("cgroup_skb/ingress")
int fuzz_local(struct __sk_buff *ctx)
{
	struct sockmeta_local_dev dev = {};
	struct sockmeta_flow flow = {};
	struct sockmeta_local *slot;
	struct fuzz_local *f;
	__u32 zero = 0;

	f = bpf_map_lookup_elem(&local, &zero);
	if (!f)
		return 0;
	slot = local_slot(f->number);
	if (!slot)
		return 0;
	f->crossed = cross(slot, &f->sent, &f->policy);
	slot->len = f->crossed;
	device_of(ctx, &dev);
	if (f->strayed)
		dev.netns = 0;
	slot->arrived = dev;
	flow_of_packet(ctx, &flow);
	slot->flow = flow;
	publish(&slot->seq, f->crossed ? f->number : 0);
	f->slot = *slot;
	f->put = put_sender(ctx, &f->rec, f->asked);
	return 1;
}

/* A record that an application sends, and what the policy leaves of it. The
 * policy is that of sockmeta_inst.
 */
struct fuzz_sent {
	struct sockmeta_sent rec;
	__u32 protocol;
	__u32 sound;
};

struct fuzz_sent sent;

SEC("cgroup_skb/egress")
int fuzz_sent(struct __sk_buff *ctx)
{
	sent.sound = is_sound(&sent.rec);
	restrict_record(&sent.rec, sent.protocol);
	return 1;
}

/* Control messages, and where the walk found them. */
struct fuzz_message {
	__u32 offset;		/* of the data */
	__u32 len;
	__s32 level;
	__s32 type;
};

struct fuzz_control {
	__u32 len;
	__u32 found;
	__u64 address;		/* of bytes */
	struct fuzz_message messages[SOCKMETA_CMSG_MAX];
	__u8 bytes[1024];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct fuzz_control);
} control SEC(".maps");

SEC("cgroup_skb/egress")
int fuzz_control(struct __sk_buff *ctx)
{
	struct sockmeta_cmsg_iter it;
	struct sockmeta_cmsg *c;
	struct fuzz_control *f;
	__u32 zero = 0, n = 0;
	__u64 address;

	f = bpf_map_lookup_elem(&control, &zero);
	if (!f)
		return 0;
	/* Read back it is a number to the verifier, as msg_control is: Linux 6.1's
	 * does not see how far the walk goes from a pointer to the map.
	 */
	f->address = (__u64)f->bytes;
	address = *(volatile __u64 *)&f->address;
	sockmeta_for_each_cmsg(c, &it, (const void *)address, f->len) {
		struct fuzz_message *m = &f->messages[n & (SOCKMETA_CMSG_MAX - 1)];

		m->offset = (__u64)it.data - address;
		m->len = it.data_len;
		m->level = c->level;
		m->type = c->type;
		n++;
	}
	f->found = n;
	return 1;
}

/* Values that a producer puts one after the other, and one that it looks for. */
#define FUZZ_PUTS 16

struct fuzz_put {
	__u8 key;
	__u8 op;		/* which of the sizes, or an area */
	__s16 err;
};

struct fuzz_area {
	struct fuzz_put puts[FUZZ_PUTS];
	__u32 n;
	__u32 found;		/* the value's place in the area and 1; 0: none */
	__u8 key;
	__u8 op;
	__u8 pad[6];
	__u8 value[128];
};

struct fuzz_area area;

/* The sizes that values have, as sockmeta_put() takes constants. */
#define FUZZ_SIZES(X) X(0, 0) X(1, 1) X(2, 2) X(3, 4) X(4, 5) X(5, 8) X(6, 16) X(7, 100)

static __always_inline int fuzz_put_one(struct xdp_md *ctx, __u8 key, __u8 op)
{
	switch (op) {
#define PUT(op, size)						\
	case op:						\
		return sockmeta_put(ctx, key, area.value, size);
	FUZZ_SIZES(PUT)
#undef PUT
	case 8:
		return sockmeta_put_area(ctx, SOCKMETA_FORMAT_STRUCT, area.value, 12);
	case 9:
		return sockmeta_put_area(ctx, SOCKMETA_FORMAT_RAW, area.value, 64);
	}
	return 0;
}

static __always_inline void *fuzz_find_one(struct xdp_md *ctx, __u8 key, __u8 op)
{
	void *meta = (void *)(long)ctx->data_meta, *data = (void *)(long)ctx->data;

	switch (op) {
#define FIND(op, size)						\
	case op:						\
		return sockmeta_find(meta, data, key, size);
	FUZZ_SIZES(FIND)
#undef FIND
	}
	return 0;
}

SEC("xdp")
int fuzz_area(struct xdp_md *ctx)
{
	void *found;
	__u32 i;

	for (i = 0; i < FUZZ_PUTS && i < area.n; i++)
		area.puts[i].err = fuzz_put_one(ctx, area.puts[i].key, area.puts[i].op);
	found = fuzz_find_one(ctx, area.key, area.op);
	area.found = found ? found - (void *)(long)ctx->data_meta + 1 : 0;
	return XDP_PASS;
}

/* Lets frames pass with the area that they came with. */
SEC("xdp")
int fuzz_pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}

/* The last packet that left, as the programs behind ours see it. */
struct fuzz_wire {
	__u64 packets;
	__u64 tstamp;
	__u32 mark;
	__u32 priority;
	__s32 err;		/* of sockmeta_tx_get() */
	__u8 key;		/* what to look for */
	__u8 pad[3];
	__u8 value[8];
};

struct fuzz_wire wire;

SEC("cgroup_skb/egress")
int fuzz_wire(struct __sk_buff *ctx)
{
	__u8 value[8] = {};

	wire.packets++;
	wire.tstamp = ctx->tstamp;
	wire.mark = ctx->mark;
	wire.priority = ctx->priority;
	wire.err = sockmeta_tx_get(ctx, wire.key, value, sizeof(value));
	__builtin_memcpy(wire.value, value, sizeof(value));
	return 1;
}

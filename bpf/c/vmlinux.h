/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * The kernel's own types, as far as the programs read them. Only names matter:
 * CO-RE finds each field's place in the BTF of the kernel that runs.
 */
#ifndef SOCKMETA_VMLINUX_H
#define SOCKMETA_VMLINUX_H

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct rtnl_link_ops {
	const char *kind;
};

struct net {
	__u64 net_cookie;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct net_device {
	const struct rtnl_link_ops *rtnl_link_ops;
	possible_net_t nd_net;
};

struct sock_common {
	unsigned short skc_family;
};

struct sock {
	struct sock_common __sk_common;
	void *sk_bpf_storage;
};

struct sk_buff {
	struct net_device *dev;
	struct sock *sk;
	unsigned int len;
	unsigned char *head;
	unsigned int end;
	__u16 mac_header;
	__u16 network_header;
	__u8 pp_recycle : 1;
	__u8 active_extensions;
	__s64 tstamp;
	__u32 priority;
	int skb_iif;
	__u32 hash;
	__u16 vlan_proto;
	__u16 vlan_tci;
	unsigned int napi_id;
	__u32 mark;
};

struct skb_shared_hwtstamps {
	__s64 hwtstamp;
};

struct skb_shared_info {
	__u8 meta_len;
	__u16 gso_segs;
	struct skb_shared_hwtstamps hwtstamps;
};

struct task_struct {
	int pid;
	int tgid;
};

struct tcp_sock {
	__u32 copied_seq;
	__u32 rcv_nxt;
	__u32 rcv_wup;
	__u32 window_clamp;
};

struct udp_sock {
	int pending;
};

struct socket {
	struct sock *sk;
};

struct cmsghdr {
	unsigned long cmsg_len;
	int cmsg_level;
	int cmsg_type;
};

struct msghdr {
	void *msg_name;
	union {
		void *msg_control;
	};
	bool msg_control_is_user : 1;
	__kernel_size_t msg_controllen;
};

enum skb_ext_id {
	SKB_EXT_SEC_PATH = 1,
};

#pragma clang attribute pop

#endif

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

#define IFF_LOOPBACK (1 << 3)
#define ARPHRD_ETHER 1

struct device {
	struct device *parent;
};

struct net_device {
	const struct rtnl_link_ops *rtnl_link_ops;
	unsigned int flags;
	unsigned short type;
	possible_net_t nd_net;
	struct device dev;
};

struct sock_common {
	unsigned short skc_family;
	possible_net_t skc_net;
	unsigned long skc_flags;
};

typedef struct {
	__u32 val;
} kuid_t;

struct socket;

typedef struct {
	int counter;
} atomic_t;

typedef struct refcount_struct {
	atomic_t refs;
} refcount_t;

struct sock {
	struct sock_common __sk_common;
	void *sk_bpf_storage;
	kuid_t sk_uid;
	refcount_t sk_wmem_alloc;
	struct socket *sk_socket;
	struct sk_filter *sk_filter;
	void *sk_user_data;
	__u8 sk_clockid;
};

enum sock_flags {
	SOCK_DONE = 1,
	SOCK_TXTIME = 2,
};

struct sk_buff {
	struct net_device *dev;
	struct sock *sk;
	unsigned int len;
	unsigned char *head;
	unsigned int end;
	unsigned int truesize;
	__u16 mac_header;
	__u16 network_header;
	__u16 transport_header;
	__u8 pp_recycle : 1;
	__u8 active_extensions;
	__u8 ip_summed : 2;
	__u8 csum_valid : 1;
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

struct request_sock;

struct tcp_options_received {
	__u32 ts_recent;
};

struct tcp_sock {
	__u32 copied_seq;
	__u32 rcv_nxt;
	__u32 rcv_wup;
	__u32 rcv_wnd;
	__u32 window_clamp;
	__u8 bpf_sock_ops_cb_flags;
	__u32 snd_una;
	__u32 snd_nxt;
	__u32 max_window;
	struct tcp_options_received rx_opt;
	struct request_sock *fastopen_rsk;
};

struct tcp_ulp_ops;

struct inet_connection_sock {
	const struct tcp_ulp_ops *icsk_ulp_ops;
};

struct bpf_sock_ops_kern {
	struct sk_buff *skb;
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

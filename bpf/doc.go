// SPDX-License-Identifier: Apache-2.0

// Package bpf holds sockmeta's BPF programs and attaches them.
//
// Six programs work for a cgroup: cgroup_skb/ingress saves what a packet
// knows as it enters a socket's queue, cgroup_skb/egress finds what the
// application gave a packet that leaves and applies it as the Policy allows,
// cgroup/getsockopt and cgroup/setsockopt answer at level SOL_BPF, sockops follows
// TCP connections, and cgroup/sock_release counts sockets that are closed. They concern themselves only with sockets that opted in
// (EnableSocket); package conn does that for its connections.
//
// Others are there for those who ask for them: AttachLocal lets metadata reach
// receivers on the same host, Options.Tracing reads raw control messages, and
// AttachProducer attaches an XDP program that puts metadata in front of an
// interface's packets. Your own XDP programs do the same with include/sockmeta.h, and
// those at TC or cgroup egress read what applications send with include/sockmeta_tx.h.
//
// Attaching needs Linux 6.1 with BTF (/sys/kernel/btf/vmlinux), a cgroup v2
// hierarchy, and CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON in the initial user
// namespace. Using a socket below an attachment needs nothing.
//
// Everything here is safe for concurrent use. On other systems than Linux all
// functions return an error that is ErrNotSupported.
package bpf

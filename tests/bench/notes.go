// SPDX-License-Identifier: Apache-2.0

package main

import "slices"

// A note says what bounds rows that miss their targets. {id} stands for the value of
// a row.
type note struct {
	ids  []string
	text string
}

func (n *note) about(id string) bool { return slices.Contains(n.ids, id) }

// notes name functions of Linux 6.18 (net/socket.c, net/core/scm.c,
// kernel/bpf/cgroup.c).
var notes = []note{
	{[]string{"udp-read/plain"}, `The control message that brings the handle, more than the record. A read that
receives the handle and does nothing with it has {udp-read/handle} of the plain read's datagrams/s: recvmsg
looks at the timestamps (__sock_recv_timestamp) and writes 64 bytes of message (put_cmsg_scm_timestamping64) and
its length to the application. The rest is finding the handle and copying the record, which comes from another
CPU's cache ({record/ns}). Where the kernel does more for each datagram than here, for a firewall or a real NIC,
both sides are slower by the same.`},

	{[]string{"udp-batch/single"}, `A batch saves system calls and nothing else. One without metadata, by
golang.org/x/net, reads {udp-batch/xnet-single} as many datagrams as single reads do on this machine: each
datagram costs the cache misses on its buffer, which another CPU has filled, and the copies, whichever way it is
read. On top of that comes the control message, as in single reads.`},

	{[]string{"udp-batch/xnet"}, `The kernel writes one control message more a datagram (see the single read), and the
record is copied. What golang.org/x/net spends on addresses, which it allocates for each datagram, makes up for
a part of it.`},

	{[]string{"record/ns"}, `Cache misses. The record has just been written by the CPU that received the packet, and
its lines come from there. From its own caches the CPU reads the same record in {record/cached}.`},

	{[]string{"udp-send/metadata"}, `The egress program, which reads the record from the sender's memory ({bpf/udp-out}
by the kernel's measuring), and filling the slot; both sides have a control message. With a program that does
nothing in the cgroup, the SO_MARK send does {udp-send/empty-mark} of what it does with none: so much is the
kernel's hook alone.`},

	{[]string{"udp-send/without"}, `The kernel's hook: an empty program in the cgroup leaves {udp-send/empty} of the
sends of a socket without any. The rest is the program's, which finds that there is nothing to do
({bpf/udp-out-without}).`},

	{[]string{"bpf/udp-in", "bpf/tcp-in"}, `Most of it is what the program has the kernel do: finding the socket's
storage, reading the area in front of the packet (bpf_probe_read_kernel, as cgroup programs have no direct
access to it), and writing a slot whose lines are in another CPU's cache, which has read them. For TCP a ring in
the socket's storage takes the slot's place.`},

	{[]string{"bpf/udp-out"}, `The record is in the memory of the sending process. It is read by bpf_probe_read_user,
and the slot's number once more behind it, as the process may write meanwhile; and it is kept at the socket for
the programs that look at the packet later.`},

	{[]string{"bpf/udp-out-without", "bpf/udp-in-other", "bpf/tcp-in-other", "bpf/udp-out-other"},
		`The look at the socket's storages, which say whether there is something to do. A few ns are within what the
measuring itself varies by.`},

	{[]string{"tcp-metadata/mark"}, `The kernel's hook, before any program of ours does anything: with an empty program
in the cgroup a getsockopt takes {sockopt/hook} of the time that it takes with none, as the kernel copies the
value into a buffer of its own, locks the socket, runs the program and copies the value back
(__cgroup_bpf_run_filter_getsockopt). An answer of more than 32 bytes, as a record is, needs that buffer
allocated as well, and then there are the record's own copies: from the socket's storage to the buffer, to the
process, to the caller.`},

	{[]string{"tcp-accept/plain", "tcp-accept/proxy"}, `Each packet of the handshake and of the end goes through the
programs, where nothing else spreads their cost. The connection gets its storage in two allocations (a copy of
the listener's, and the ring for its segments, zeroed: {memory/tcp-kernel} together). The setsockopt calls by
which package net configures what it accepts go through the kernel's hook, and the metadata is one getsockopt
more.`},

	{[]string{"tcp-stream/read", "tcp-stream/splice"}, `Reading and splicing are the same calls on the same
net.TCPConn, and the programs run once for each merged packet. Two plain sockets differ by {tcp-stream/itself}
in the same run.`},

	{[]string{"growth-sockets/udp"}, `A socket's storage is one more object that is in no cache where there are so
many.`},

	{[]string{"growth-goroutines/read", "growth-goroutines/write"}, `What goroutines share is the handle of the last
read, which Metadata needs, and the cursor of the transmit slots. The quartiles say how much scheduling varies.`},

	{[]string{"growth-ring/udp"}, `Each slot of a ring that is larger than the caches is a miss for the program that
writes it.`},
}

// SPDX-License-Identifier: Apache-2.0

package bpf

import "github.com/sockmeta/sockmeta-go/internal/abi"

// Options say how to attach. The zero value attaches to the cgroup of this process,
// with DefaultPolicy, and shares what is attached there already under the same policy.
type Options struct {
	// Cgroup is the directory of a cgroup v2. Empty: the one that this
	// process is in.
	Cgroup string

	// SlotsPerCPU is how many received packets of each CPU are remembered
	// until newer ones take their place: a power of two, 384 bytes each. It
	// should be more than the packets that wait in all receive buffers of
	// the sockets that opted in. 0: those of what is shared, or else 4096, and
	// fewer on hosts with more than 16 CPUs.
	SlotsPerCPU int

	// MaxSockets is how many sockets have metadata at once, connections that a
	// listener accepted and those that wait for that among them, and
	// MaxSocketsPerUser how many of one user (the owner of the socket, fstat(2)).
	// The kernel charges what it keeps at them, up to 10 KiB each, to the memory
	// cgroup of the process that attached: docs/security.md says how to size it.
	// Others are plain sockets, whose Support says so, and Counts has how many.
	//
	// 0: those of what is shared. Or else MaxSockets is what a third of this
	// process's memory suffices for (the limit of its cgroup or the host's RAM,
	// less the receive map), and MaxSocketsPerUser is half of MaxSockets.
	MaxSockets, MaxSocketsPerUser int

	// Private attaches programs of our own even where others are.
	Private bool

	// Policy is what applications may ask for with what they send. nil:
	// DefaultPolicy. An attachment that is shared has this policy, no other.
	Policy *Policy

	// Tracing makes the programs read raw control messages, {SOL_BPF,
	// SOCKMETA_SCM_RECORD}, of UDP sockets in the cgroup, whatever sends them:
	// the first of a datagram's, if it is among its first 32 control messages.
	// A launch time comes in SCM_TXTIME, not in the record.
	//
	// It attaches to functions that all UDP sends of the host go through
	// (fentry/udp_sendmsg), which costs each of them a look at its control
	// messages. It needs a kernel that allows BPF trampolines. On one that may
	// take the CPU from a task inside the programs, very few datagrams leave
	// without their record when many tasks send on one CPU.
	//
	// Where the kernel has functions for control messages (Attachment.Native) they
	// are read without it, all of them and none is missed.
	Tracing bool
}

// policy is the one that the options stand for.
func (o *Options) policy() abi.Policy {
	p := DefaultPolicy()
	if o.Policy != nil {
		p = *o.Policy
	}
	return p.encode()
}

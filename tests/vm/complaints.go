// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"
)

// signs are what lines of the kernel's log have in common that say something is
// wrong with it.
var signs = []string{
	"BUG:", "WARNING:", "Oops", "general protection fault", "Kernel panic", "kernel BUG at",
	"INFO: task", "self-detected stall", "detected stalls", "unregister_netdevice: waiting", "UBSAN",
}

// harmless are complaints that say nothing of what the tests do.
var harmless = []string{
	// x86's return_to_handler is what functions return through that the function graph
	// tracer traces, and so fprobes since Linux 6.14. Its last instructions have dropped
	// its frame already, which the unwinder's data does not say of them. An interrupt
	// there whose stack somebody wants, as slub_debug=U does for every allocation, has
	// the unwinder give up with this message (arch/x86/kernel/ftrace_64.S and
	// unwind_orc.c).
	"WARNING: stack going in the wrong direction? at return_to_handler+",
	// ip_tunnel_info_opts_set() copies a Geneve packet's options behind the struct that
	// it was given, where there is room, and FORTIFY_SOURCE of Linux 6.12 takes it for
	// a copy into the struct (include/net/ip_tunnels.h).
	"geneve_udp_encap_recv+",
}

// complaints returns the lines of a kernel's log that say something is wrong with it.
func complaints(log string) []string {
	var found []string
	for line := range strings.Lines(log) {
		bad := func(sign string) bool { return strings.Contains(line, sign) }
		if slices.ContainsFunc(signs, bad) && !slices.ContainsFunc(harmless, bad) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

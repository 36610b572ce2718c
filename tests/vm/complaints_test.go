// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"testing"
)

func TestComplaints(t *testing.T) {
	const log = "[    8.6] sockmeta: loading out-of-tree module taints kernel.\r\n" +
		"[    9.0] vm: begin tests\n" +
		"[  223.2] WARNING: stack going in the wrong direction? at return_to_handler+0x46/0x50\r\n" +
		"[  224.0] WARNING: stack going in the wrong direction? at udp_recvmsg+0x46/0x50\r\n" +
		"[  225.0] BUG: KASAN: WARNING: two signs in a line\n" +
		"[  226.0] WARNING: net/ipv4/udp.c:1 at return_to_handler+0x46/0x50"
	want := []string{
		"[  224.0] WARNING: stack going in the wrong direction? at udp_recvmsg+0x46/0x50",
		"[  225.0] BUG: KASAN: WARNING: two signs in a line",
		"[  226.0] WARNING: net/ipv4/udp.c:1 at return_to_handler+0x46/0x50",
	}
	if got := complaints(log); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

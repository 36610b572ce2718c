// SPDX-License-Identifier: Apache-2.0

// Package xdpmeta finds out how much metadata the kernel lets XDP programs leave in
// front of a packet: 32 bytes on Linux 6.1, 252 later (xdp_metalen_invalid in
// include/net/xdp.h).
package xdpmeta

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// Fits says whether an area of so many bytes is allowed, by having a program ask for
// one. It needs CAP_BPF and CAP_NET_ADMIN. What a driver has room for is another
// matter.
func Fits(size int) (bool, error) {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "xdpmeta", Type: ebpf.XDP, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{
			asm.Mov.Imm(asm.R2, int32(-size)),
			asm.FnXdpAdjustMeta.Call(),
			asm.Return(),
		},
	})
	if err != nil {
		return false, fmt.Errorf("how much XDP metadata fits: %w", err)
	}
	defer prog.Close()
	const shortestFrame = 14
	ret, err := prog.Run(&ebpf.RunOptions{Data: make([]byte, shortestFrame)})
	if err != nil {
		return false, fmt.Errorf("how much XDP metadata fits: %w", err)
	}
	return ret == 0, nil
}

// Most returns the length of the largest area that is allowed.
func Most() (int, error) {
	for size := 256 - 4; ; size -= 4 {
		if fits, err := Fits(size); fits || err != nil {
			return size, err
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/internal/netlab"
)

// hostLimits tries what tests make use of and kernels may be built or locked down
// not to have, and returns what is lacking.
func hostLimits() (limits []string, err error) {
	p, err := netlab.NewPair()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	for _, try := range []struct {
		limit string
		f     func() error
	}{
		{noTrampolines, tryTrampolines},
		{noFQ, func() error { return netlab.SetQdisc(p.Client, p.ClientIf, "fq") }},
		{noVLAN, func() error { return netlab.AddVLAN(p.Client, p.ClientIf, "v7", 7) }},
		{noTunnels, func() error {
			return netlab.AddTunnel(p.Client, "g7", netlab.Tunnel{Kind: "geneve", Port: 6081, External: true})
		}},
		{noDummy, func() error { return netlab.AddDummy(p.Client, "d0") }},
	} {
		switch err := try.f(); {
		case errors.Is(err, unix.EPERM), errors.Is(err, unix.ENOENT), errors.Is(err, errors.ErrUnsupported):
			limits = append(limits, try.limit)
		case err != nil:
			return nil, err
		}
	}
	return limits, nil
}

func tryTrampolines() error {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.Tracing, AttachType: ebpf.AttachTraceFEntry, AttachTo: "udp_sendmsg",
		License: "Dual BSD/GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return err
	}
	return prog.Close()
}

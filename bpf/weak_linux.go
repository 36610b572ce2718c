// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// weakFunctions are the kernel's that the programs do without where they are missing
// (bpf/c/kfuncs.h). No module has them.
var weakFunctions = []string{"bpf_cast_to_kern_ctx", "bpf_rdonly_cast"}

// dropMissing resolves references to functions that the kernel lacks. The loader
// would, after a search in all BTF objects of the host, for each reference anew.
func dropMissing(spec *ebpf.CollectionSpec, types *btf.Cache) error {
	kernel, err := types.Kernel()
	if errors.Is(err, ebpf.ErrNotSupported) {
		return fmt.Errorf("the kernel tells nothing of its types: it needs CONFIG_DEBUG_INFO_BTF=y, and this process /sys/kernel/btf/vmlinux: %w", err)
	}
	if err != nil {
		return err
	}
	for _, name := range weakFunctions {
		var fn *btf.Func
		err := kernel.TypeByName(name, &fn)
		if errors.Is(err, btf.ErrNotFound) {
			for _, p := range spec.Programs {
				drop(p.Instructions, name)
			}
		} else if err != nil {
			return fmt.Errorf("kernel function %s: %w", name, err)
		}
	}
	return nil
}

// drop makes the function's address 0, which makes calls of it dead code.
func drop(insns asm.Instructions, name string) {
	for i := range insns {
		ins := &insns[i]
		if ins.Reference() != name {
			continue
		}
		missing := asm.FnUnspec.Call()
		if !ins.IsKfuncCall() {
			missing = asm.LoadImm(ins.Dst, 0, asm.DWord)
		}
		if symbol := ins.Symbol(); symbol != "" {
			missing = missing.WithSymbol(symbol)
		}
		*ins = missing.WithSource(ins.Source())
	}
}

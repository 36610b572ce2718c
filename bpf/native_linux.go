// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/internal/abi"
)

// nativeModule is the kernel module of bpf/kmod.
const nativeModule = "sockmeta"

// errNative is in what went wrong with attaching the programs of the native tier.
var errNative = errors.New("control messages of the kernel's own")

// nativeFunctions are what native.bpf.c cannot do without (bpf/c/kfuncs.h).
var nativeFunctions = []string{
	"bpf_sock_addr_msg_acquire", "bpf_msg_release", "bpf_msg_put_cmsg",
	"bpf_iter_cmsghdr_new", "bpf_iter_cmsghdr_next", "bpf_iter_cmsghdr_destroy", "bpf_cmsg_data_read",
	"bpf_msg_skb_acquire", "bpf_msg_skb_release", "bpf_skb_meta_read",
}

// findNative says whether the functions of native.bpf.c are there: the kernel's own,
// or the module's.
func findNative(types *btf.Cache) error {
	specs, err := nativeTypes(types)
	if err != nil {
		return err
	}
	for _, name := range nativeFunctions {
		if !hasFunction(specs, name) {
			return fmt.Errorf("%w: no kernel function %s: load the module of bpf/kmod", ErrNotSupported, name)
		}
	}
	return nil
}

// nativeTypes returns the types of the kernel and, where it is loaded, of the module.
func nativeTypes(types *btf.Cache) ([]*btf.Spec, error) {
	kernel, err := types.Kernel()
	if err != nil {
		return nil, err
	}
	specs := []*btf.Spec{kernel}
	if _, err := os.Stat("/sys/kernel/btf/" + nativeModule); err == nil {
		if err := toLoadModule.check(); err != nil {
			return nil, err
		}
		module, err := types.Module(nativeModule)
		if err != nil {
			return nil, fmt.Errorf("types of the module %s: %w", nativeModule, err)
		}
		specs = append(specs, module)
	}
	return specs, nil
}

func hasFunction(specs []*btf.Spec, name string) bool {
	for _, s := range specs {
		var fn *btf.Func
		if s.TypeByName(name, &fn) == nil {
			return true
		}
	}
	return false
}

// loadNative loads the programs of the native tier or says why there is none.
func (p *programs) loadNative() error {
	if err := findNative(p.object.types); err != nil {
		return err
	}
	if err := errors.Join(p.load(nativePart), p.load(faultInPart)); err != nil {
		return fmt.Errorf("%w: %w", ErrNotSupported, err)
	}
	name := faultInPart.programs[0]
	l, err := attachProgram(nil, p.object.spec.Programs[name], p.loaded[name])
	if errors.Is(err, unix.E2BIG) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotSupported, err)
	}
	p.faultIn = []link.Link{l}
	return nil
}

// nativeFeatures are those of Info.Features that the loaded programs stand for.
func (p *programs) nativeFeatures() uint32 {
	switch {
	case p.missing != nil:
		return 0
	case len(p.faultIn) == 0:
		return abi.FeatureNative
	}
	return abi.FeatureNative | abi.FeatureFaultIn
}

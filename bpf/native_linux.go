// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
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
func (p *programs) loadNative(cpus int, shared map[string]*ebpf.Map, types *btf.Cache) error {
	if err := findNative(types); err != nil {
		return err
	}
	spec, err := loadNative()
	if err != nil {
		return err
	}
	if err := spec.Variables["first_napi_id"].Set(uint32(cpus + 1)); err != nil {
		return err
	}
	if err := loadShared(spec, &p.native, shared, types); err != nil {
		return fmt.Errorf("%w: %w", ErrNotSupported, err)
	}
	l, err := link.AttachLSM(link.LSMOptions{Program: p.native.SockmetaFaultIn})
	if errors.Is(err, unix.E2BIG) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: lsm/socket_recvmsg: %w", ErrNotSupported, err)
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

// attachNative attaches the programs of the native tier.
func (a *Attachment) attachNative(dir *os.File, loaded *programs) error {
	a.links = append(a.links, loaded.faultIn...)
	loaded.faultIn = nil
	p := &loaded.native
	for _, prog := range []*ebpf.Program{p.SockmetaSent, p.SockmetaSendCorked} {
		l, err := link.AttachTracing(link.TracingOptions{Program: prog})
		if err != nil {
			return fmt.Errorf("tracepoints of the module %s: %w", nativeModule, err)
		}
		a.links = append(a.links, l)
	}
	return errors.Join(
		a.attachProgram(dir, "cgroup/recvmsg4", ebpf.AttachCGroupUDP4Recvmsg, p.SockmetaRecv4),
		a.attachProgram(dir, "cgroup/recvmsg6", ebpf.AttachCGroupUDP6Recvmsg, p.SockmetaRecv6),
		a.attachProgram(dir, "cgroup/sendmsg4", ebpf.AttachCGroupUDP4Sendmsg, p.SockmetaSend4),
		a.attachProgram(dir, "cgroup/sendmsg6", ebpf.AttachCGroupUDP6Sendmsg, p.SockmetaSend6),
	)
}

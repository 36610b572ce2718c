// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/bits"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/internal/abi"
)

// programs are what an attachment consists of, and the maps that they share.
type programs struct {
	object *object
	loaded map[string]*ebpf.Program
	maps   map[string]*ebpf.Map
	// missing is why there is no native tier.
	missing error
	// faultIn is the link of faultInPart, which is attached as it is loaded.
	faultIn []link.Link
	slots   *Slots
}

// readsRaw says whether there are programs that read raw control messages.
func (p *programs) readsRaw(opts Options) bool { return opts.Tracing || p.missing == nil }

// defaultSlots is the number of receive slots a CPU has unless Options say
// otherwise: more than the packets that wait in the socket buffers of a usual
// host (net.core.rmem_default holds 277 small datagrams a socket), at 384 bytes
// each. Hosts with many CPUs get fewer a CPU, so that the map stays below 25 MB.
func defaultSlots(cpus int) int {
	const perCPU, total = 4096, 65536

	n := min(perCPU, total/cpus)
	return max(64, 1<<(bits.Len(uint(n))-1))
}

// checkSlots says whether there can be n slots a CPU, 0 for the default.
func checkSlots(n int) error {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return err
	}
	if n < 0 || n&(n-1) != 0 || uint64(n)*uint64(cpus) > abi.IndexMask {
		return fmt.Errorf("%d slots a CPU: want a power of two, and no more than %d in all", n, abi.IndexMask)
	}
	return nil
}

// load loads the programs: those of the native tier unless it is missing, which it says
// why.
func load(opts Options, missing error) (_ *programs, err error) {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, err
	}
	slotsPerCPU := opts.SlotsPerCPU
	if slotsPerCPU == 0 {
		slotsPerCPU = defaultSlots(cpus)
	}

	o, err := openObject()
	if err != nil {
		return nil, err
	}
	secret, err := secretMap()
	if err != nil {
		return nil, err
	}
	defer secret.Close()
	o.spec.Maps[slotsName].MaxEntries = uint32(slotsPerCPU * cpus)
	err = errors.Join(
		o.set("slots_shift", uint32(bits.TrailingZeros(uint(slotsPerCPU)))),
		o.set("first_napi_id", uint32(cpus+1)),
		o.set("handle_keys", randomKeys()),
	)
	if err != nil {
		return nil, err
	}

	p := &programs{object: o, loaded: make(map[string]*ebpf.Program)}
	defer func() {
		if err != nil {
			_ = p.Close()
		}
	}()
	if p.maps, err = o.makeMaps(map[string]*ebpf.Map{secretName: secret}); err != nil {
		return nil, err
	}
	if p.missing = missing; missing == nil {
		p.missing = p.loadNative()
	}
	if p.missing == nil {
		opts.Tracing = false
	}
	if err := o.set("raws", p.readsRaw(opts)); err != nil {
		return nil, err
	}
	if err := p.load(corePart); err != nil {
		return nil, err
	}
	// Whoever joins finds the maps by this program.
	if err := p.loaded[getsockoptProgram].BindMap(p.maps[linksName]); err != nil {
		return nil, fmt.Errorf("links map: %w", err)
	}
	if opts.Tracing {
		if err := p.load(tracingPart); err != nil {
			return nil, fmt.Errorf("%w: %w", errTracing, err)
		}
	}
	return p, p.publish(slotsPerCPU, opts)
}

func (p *programs) load(part part) error {
	loaded, err := p.object.load(p.maps, part.programs...)
	maps.Copy(p.loaded, loaded)
	return err
}

// monotonic returns the time by the clock that programs have, in ns.
func monotonic() uint64 {
	var now unix.Timespec
	// It does not fail for this clock.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	return uint64(now.Nano())
}

// randomKeys returns the keys of slots.h.
func randomKeys() (keys [4]uint64) {
	for i := range keys {
		keys[i] = random64()
	}
	return keys
}

func random64() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.NativeEndian.Uint64(b[:])
}

// publish makes the maps what applications find: the instance says who it is,
// and neither it nor the slots can be written by user space from here on.
func (p *programs) publish(slotsPerCPU int, opts Options) error {
	rx, instance := p.maps[slotsName], p.maps[instanceName]
	info, err := rx.Info()
	if err != nil {
		return fmt.Errorf("receive map: %w", err)
	}
	id, ok := info.ID()
	if !ok {
		return errors.New("receive map has no id")
	}

	firstLocal := monotonic() / 2
	inst := abi.Instance{
		Info: Info{
			ABI:         abi.ABI,
			SlotsPerCPU: uint32(slotsPerCPU),
			Instance:    random64(),
			RxMapID:     uint32(id),
			Slots:       rx.MaxEntries(),
		},
		Policy: opts.policy(),
		Bounds: opts.bounds(rx),
		// struct sockmeta_local says why it begins there.
		LocalFirst:  firstLocal,
		LocalCursor: firstLocal,
	}
	if opts.Tracing {
		inst.Info.Features |= abi.FeatureTracing
	}
	inst.Info.Features |= p.nativeFeatures()
	if err := instance.Put(uint32(0), &inst); err != nil {
		return fmt.Errorf("instance map: %w", err)
	}
	if err := instance.Freeze(); err != nil {
		return fmt.Errorf("instance map: %w", err)
	}
	if err := rx.Freeze(); err != nil {
		return fmt.Errorf("receive map: %w", err)
	}
	p.slots, err = mapSlots(rx)
	return err
}

// Close drops our references; what is attached keeps its own.
func (p *programs) Close() error {
	errs := []error{closeLinks(p.faultIn)}
	for _, prog := range p.loaded {
		errs = append(errs, prog.Close())
	}
	for _, m := range p.maps {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}

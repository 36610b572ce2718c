// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/internal/abi"
	"github.com/sockmeta/sockmeta-go/internal/kerneltypes"
)

// programs are what an attachment consists of, and the maps that they share.
type programs struct {
	ingress ingressPrograms
	egress  egressPrograms
	sockopt sockoptPrograms
	sockops sockopsPrograms
	release releasePrograms
	tracing tracingPrograms // nil unless Options.Tracing
	native  nativePrograms  // nil unless missing is
	// missing is why there is no native tier.
	missing error
	// faultIn is the link of the one program that is attached as it is loaded. There
	// is none where others leave it no room: 38 are for one function of the kernel
	// (BPF_MAX_TRAMP_LINKS).
	faultIn []link.Link
	maps    ingressMaps
	bounds  boundsMaps
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

	ingress, err := loadIngress()
	if err != nil {
		return nil, err
	}
	secret, err := secretMap()
	if err != nil {
		return nil, err
	}
	defer secret.Close()
	ingress.Maps["sockmeta_rx"].MaxEntries = uint32(slotsPerCPU * cpus)
	if err := ingress.Variables["slots_shift"].Set(uint32(bits.TrailingZeros(uint(slotsPerCPU)))); err != nil {
		return nil, err
	}
	if err := ingress.Variables["first_round"].Set(firstRound()); err != nil {
		return nil, err
	}

	p := &programs{}
	defer func() {
		if err != nil {
			_ = p.Close()
		}
	}()
	var ingressObjects struct {
		ingressPrograms
		ingressMaps
	}
	types := kerneltypes.Cache()
	if err := loadShared(ingress, &ingressObjects, map[string]*ebpf.Map{secretName: secret}, types); err != nil {
		return nil, err
	}
	p.ingress, p.maps = ingressObjects.ingressPrograms, ingressObjects.ingressMaps
	if err := loadBounds(&p.bounds); err != nil {
		return nil, err
	}

	shared := p.shared()
	if p.missing = missing; missing == nil {
		p.missing = p.loadNative(cpus, shared, types)
	}
	if p.missing == nil {
		opts.Tracing = false
	}
	egress, err := loadEgress()
	if err != nil {
		return nil, err
	}
	if err := egress.Variables["raws"].Set(p.readsRaw(opts)); err != nil {
		return nil, err
	}
	if err := loadShared(egress, &p.egress, shared, types); err != nil {
		return nil, err
	}
	sockopt, err := loadSockopt()
	if err != nil {
		return nil, err
	}
	if err := loadShared(sockopt, &p.sockopt, shared, types); err != nil {
		return nil, err
	}
	sockops, err := loadSockops()
	if err != nil {
		return nil, err
	}
	if err := loadShared(sockops, &p.sockops, shared, types); err != nil {
		return nil, err
	}
	release, err := loadRelease()
	if err != nil {
		return nil, err
	}
	if err := loadShared(release, &p.release, shared, types); err != nil {
		return nil, err
	}
	if opts.Tracing {
		tracing, err := loadTracing()
		if err != nil {
			return nil, err
		}
		if err := loadShared(tracing, &p.tracing, shared, types); err != nil {
			return nil, fmt.Errorf("%w: %w", errTracing, err)
		}
	}
	return p, p.publish(slotsPerCPU, opts)
}

// shared are the maps by name.
func (p *programs) shared() map[string]*ebpf.Map {
	return map[string]*ebpf.Map{
		"sockmeta_rx":         p.maps.SockmetaRx,
		"sockmeta_sks":        p.maps.SockmetaSks,
		"sockmeta_tcps":       p.maps.SockmetaTcps,
		"sockmeta_spill":      p.maps.SockmetaSpill,
		"sockmeta_pages":      p.maps.SockmetaPages,
		"sockmeta_inst":       p.maps.SockmetaInst,
		"sockmeta_cursor":     p.maps.SockmetaCursor,
		"sockmeta_handshakes": p.maps.SockmetaHandshakes,
		flightsName:           p.maps.SockmetaFlights,
		connsName:             p.maps.SockmetaConns,
		"sockmeta_count":      p.maps.SockmetaCount,
		"sockmeta_raws":       p.maps.SockmetaRaws,
		"sockmeta_local_devs": p.maps.SockmetaLocalDevs,
		"sockmeta_locals":     p.maps.SockmetaLocals,
		seatsName:             p.bounds.SockmetaSeats,
		roomsName:             p.bounds.SockmetaRooms,
		secretName:            p.maps.SockmetaSecret,
		givenName:             p.maps.SockmetaGiven,
	}
}

// firstRound returns where an attachment begins to count the rounds through its
// slots: behind all rounds of earlier attachments, since no round is shorter than
// the clock's units of 4 µs (next_slot in c/ingress.bpf.c sees to it). Handles have
// room for 6 days of them.
func firstRound() uint64 { return monotonic()>>12 + 1 }

// monotonic returns the time by the clock that programs have, in ns.
func monotonic() uint64 {
	var now unix.Timespec
	// It does not fail for this clock.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	return uint64(now.Nano())
}

// loadShared loads one object on top of the maps that are there already.
func loadShared(spec *ebpf.CollectionSpec, to any, shared map[string]*ebpf.Map, types *btf.Cache) error {
	if err := dropMissing(spec, types); err != nil {
		return err
	}
	opts := ebpf.CollectionOptions{MapReplacements: make(map[string]*ebpf.Map), Cache: types}
	for name, m := range shared {
		if own, ok := spec.Maps[name]; ok {
			own.MaxEntries = m.MaxEntries()
			opts.MapReplacements[name] = m
		}
	}
	return spec.LoadAndAssign(to, &opts)
}

// publish makes the maps what applications find: the instance says who it is,
// and neither it nor the slots can be written by user space from here on.
func (p *programs) publish(slotsPerCPU int, opts Options) error {
	info, err := p.maps.SockmetaRx.Info()
	if err != nil {
		return fmt.Errorf("receive map: %w", err)
	}
	id, ok := info.ID()
	if !ok {
		return errors.New("receive map has no id")
	}
	var random [8]byte
	rand.Read(random[:])

	firstLocal := monotonic() / 2
	inst := abi.Instance{
		Info: Info{
			ABI:         abi.ABI,
			SlotsPerCPU: uint32(slotsPerCPU),
			Instance:    binary.NativeEndian.Uint64(random[:]),
			RxMapID:     uint32(id),
			Slots:       p.maps.SockmetaRx.MaxEntries(),
		},
		Policy: opts.Policy.encode(),
		Bounds: opts.bounds(p.maps.SockmetaRx),
		// struct sockmeta_local says why it begins there.
		LocalFirst:  firstLocal,
		LocalCursor: firstLocal,
	}
	if opts.Tracing {
		inst.Info.Features |= abi.FeatureTracing
	}
	inst.Info.Features |= p.nativeFeatures()
	if err := p.maps.SockmetaInst.Put(uint32(0), &inst); err != nil {
		return fmt.Errorf("instance map: %w", err)
	}
	if err := p.maps.SockmetaInst.Freeze(); err != nil {
		return fmt.Errorf("instance map: %w", err)
	}
	if err := p.maps.SockmetaRx.Freeze(); err != nil {
		return fmt.Errorf("receive map: %w", err)
	}
	p.slots, err = mapSlots(p.maps.SockmetaRx)
	return err
}

// Close drops our references; what is attached keeps its own.
func (p *programs) Close() error {
	return errors.Join(closeLinks(p.faultIn), p.ingress.Close(), p.egress.Close(), p.sockopt.Close(), p.sockops.Close(), p.release.Close(), p.tracing.Close(), p.native.Close(), p.maps.Close(), p.bounds.Close())
}

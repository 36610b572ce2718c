// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/internal/abi"
	"github.com/sockmeta/sockmeta-go/internal/xdpmeta"
)

// producerArea is the length of the area with all that the producer writes: three
// values, with key and length each, the seal and its gap.
const producerArea = 8 + 12 + 12 + int(abi.SealSize+abi.SealGap)

// A Producer gives every packet that an interface receives a packet id (u64,
// cmsg.KeyPacketID), the time at which it was seen (ns, CLOCK_MONOTONIC,
// cmsg.KeyKtime) and a service id (u32, cmsg.KeyServiceID). It is an XDP
// program, so it sees packets before the kernel does.
type Producer struct {
	link     link.Link
	programs producerPrograms
	maps     producerMaps
	vars     producerVariables
	generic  bool
	timed    bool
}

// AttachProducer attaches the producer to an interface in the network
// namespace of the calling thread: in the driver where it can, else by generic
// XDP. It stays until Close or the end of the process. The error is
// unix.EBUSY where the interface has another XDP program.
//
// Where the kernel allows areas of 32 bytes, as Linux 6.1 does, packets have no time:
// see Timed.
//
// It needs Linux 5.9 (XDP links), CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON.
func AttachProducer(iface string, opts ProducerOptions) (*Producer, error) {
	p, err := attachProducer(iface, opts)
	if err != nil {
		return nil, fmt.Errorf("sockmeta: attach producer to %s: %w", iface, err)
	}
	return p, nil
}

func attachProducer(iface string, options ProducerOptions) (_ *Producer, err error) {
	if err := toProduce.check(); err != nil {
		return nil, err
	}
	ifi, err := net.InterfaceByName(iface)
	if err != nil {
		return nil, err
	}
	spec, err := loadProducer()
	if err != nil {
		return nil, err
	}
	timed, err := xdpmeta.Fits(producerArea)
	if err != nil {
		return nil, explain(err)
	}
	if err := spec.Variables["all_fit"].Set(timed); err != nil {
		return nil, err
	}
	secret, err := secretMap()
	if err != nil {
		return nil, explain(err)
	}
	defer secret.Close()
	var objs producerObjects
	opts := &ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{secretName: secret}}
	if err := spec.LoadAndAssign(&objs, opts); err != nil {
		return nil, explain(fmt.Errorf("load: %w", err))
	}
	p := &Producer{programs: objs.producerPrograms, maps: objs.producerMaps, vars: objs.producerVariables, timed: timed}
	defer func() {
		if err != nil {
			_ = p.Close()
		}
	}()
	for port, id := range options.Services {
		if err := p.SetService(port, id); err != nil {
			return nil, explain(fmt.Errorf("service of port %d: %w", port, err))
		}
	}
	if !options.Generic {
		p.link, err = link.AttachXDP(link.XDPOptions{
			Program: p.programs.SockmetaProducer, Interface: ifi.Index, Flags: link.XDPDriverMode,
		})
		if err == nil {
			return p, nil
		}
		if errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("the interface has another XDP program: %w", err)
		}
	}
	p.generic = true
	p.link, err = link.AttachXDP(link.XDPOptions{
		Program: p.programs.SockmetaProducer, Interface: ifi.Index, Flags: link.XDPGenericMode,
	})
	if err != nil {
		return nil, explain(fmt.Errorf("XDP: %w", err))
	}
	return p, nil
}

// Generic says whether the program runs by generic XDP.
func (p *Producer) Generic() bool { return p.generic }

// Timed says whether packets have a time: the kernel has to allow areas of 48 bytes.
func (p *Producer) Timed() bool { return p.timed }

// SetService sets the service id of packets to a port, from the next packet on.
func (p *Producer) SetService(port uint16, id uint32) error {
	if p.maps.Services == nil {
		return unix.EINVAL
	}
	return p.maps.Services.Put(port, id)
}

// DeleteService lets packets to a port have no service id.
func (p *Producer) DeleteService(port uint16) error {
	if p.maps.Services == nil {
		return unix.EINVAL
	}
	err := p.maps.Services.Delete(port)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}

// Refused returns how many packets went on without metadata or without all of
// it, because the driver has no room for it or an earlier program filled it.
func (p *Producer) Refused() (uint64, error) {
	var n uint64
	if p.vars.Refused == nil {
		return 0, unix.EINVAL
	}
	err := p.vars.Refused.Get(&n)
	return n, err
}

// Close detaches the program.
func (p *Producer) Close() error {
	var err error
	if p.link != nil {
		err = p.link.Close()
	}
	return errors.Join(err, p.programs.Close(), p.maps.Close())
}

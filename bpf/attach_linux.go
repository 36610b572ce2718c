// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/sockmeta/sockmeta-go/internal/abi"
)

// An Attachment keeps the programs attached to one cgroup and those below it.
// Processes that attach to the same cgroup share the programs; the kernel
// detaches them when the last process that holds an Attachment closes it or
// ends, in whatever way.
type Attachment struct {
	cgroup string
	joined bool
	// missing is why there is no native tier.
	missing error
	info    Info
	slots   *Slots

	mu    sync.Mutex
	links []link.Link
	// maps are those that the links' programs use, by name as the kernel
	// knows it.
	maps map[string]*ebpf.Map
	// locals are those of AttachLocal that are open.
	locals map[*Local]bool
}

// Attach attaches the programs to a cgroup, or joins those that another
// process has attached to it. Joining needs CAP_SYS_ADMIN as well
// (BPF_LINK_GET_FD_BY_ID); without it, and in a Private attachment, the cgroup
// gets programs of our own beside the others, which is correct, but each packet
// is then looked at twice.
//
// When a kernel feature or a privilege is missing, the error is
// ErrNotSupported and names it; nothing stays attached. So it is when descriptors or
// memory ran out, but that passes: the error names the limit, and is unix.EMFILE,
// ENFILE or ENOMEM, too.
//
// The error is ErrConflict where what is attached has other options than these, and
// names both values. Join takes what is attached, whatever its options.
func Attach(opts Options) (*Attachment, error) {
	dir, err := openCgroup(opts.Cgroup)
	if err != nil {
		return nil, attachError(err)
	}
	defer dir.Close()
	return attachTo(dir, opts, &opts)
}

func attachError(err error) error {
	if short := asShortage(err); short != nil {
		err = short
	}
	return fmt.Errorf("sockmeta: attach: %w", err)
}

// attachTo is Attach for the directory of a cgroup. What it joins has the options that
// are asked for: nil, any.
func attachTo(dir *os.File, opts Options, asked *Options) (*Attachment, error) {
	a, err := attach(dir, opts, asked)
	if err != nil {
		return nil, attachError(err)
	}
	register(a.info.Instance, a.slots)
	return a, nil
}

func attach(dir *os.File, opts Options, asked *Options) (*Attachment, error) {
	if err := reserve(); err != nil {
		return nil, err
	}
	if err := checkSlots(opts.SlotsPerCPU); err != nil {
		return nil, err
	}
	if err := opts.checkBounds(); err != nil {
		return nil, err
	}
	if err := checkBits(); err != nil {
		return nil, err
	}
	if err := toAttach.check(); err != nil {
		return nil, fmt.Errorf("cgroup %s: %w", dir.Name(), err)
	}
	id, err := cgroupID(dir)
	if err != nil {
		return nil, err
	}
	if lock := lockCgroup(id); lock != nil {
		defer lock.Close()
	}
	if !opts.Private {
		// Whatever else keeps us from joining, attaching will do or say why not.
		if a, err := join(dir, asked); err == nil || errors.Is(err, ErrConflict) {
			return a, err
		}
	}
	if err := rehearse(); err != nil {
		return nil, explain(err)
	}
	a, err := attachOwn(dir, opts, nil)
	if errors.Is(err, errNative) && asShortage(err) == nil {
		// All else works without.
		a, err = attachOwn(dir, opts, fmt.Errorf("%w: %w", ErrNotSupported, err))
	}
	if err != nil {
		return nil, explain(err)
	}
	return a, nil
}

func attachOwn(dir *os.File, opts Options, noNative error) (_ *Attachment, err error) {
	p, err := load(opts, noNative)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	defer p.Close()

	a := &Attachment{cgroup: dir.Name(), missing: p.missing, slots: p.slots}
	defer func() {
		if err != nil {
			_ = a.Close()
		}
	}()
	inst, err := readInstance(p.maps[instanceName])
	if err != nil {
		return nil, err
	}
	a.info = inst.Info
	a.maps = make(map[string]*ebpf.Map)
	for name, m := range p.maps {
		if a.maps[kernelName(name)], err = m.Clone(); err != nil {
			return nil, err
		}
	}
	if a.info.Features&abi.FeatureTracing != 0 {
		if err := a.attachPart(dir, p, tracingPart); err != nil {
			return nil, fmt.Errorf("%w: %w", errTracing, err)
		}
	}
	if p.missing == nil {
		a.links = append(a.links, p.faultIn...)
		p.faultIn = nil
		if err := a.attachPart(dir, p, nativePart); err != nil {
			return nil, fmt.Errorf("%w: %w", errNative, err)
		}
	}
	if err := a.attachPart(dir, p, corePart); err != nil {
		return nil, err
	}
	return a, a.publishLinks()
}

// Cgroup returns the directory of the cgroup that the programs are attached to.
func (a *Attachment) Cgroup() string { return a.cgroup }

// Shared says whether another process had attached the programs before.
func (a *Attachment) Shared() bool { return a.joined }

// Policy returns the policy in force: the programs read it from the same map.
func (a *Attachment) Policy() (Policy, error) {
	in, err := a.instance()
	if err != nil {
		return Policy{}, fmt.Errorf("sockmeta: policy: %w", err)
	}
	return decodePolicy(&in.Policy), nil
}

// Options returns the options in force, with their values where zero is a default.
// Attach with them shares the attachment.
func (a *Attachment) Options() (Options, error) {
	in, err := a.instance()
	if err != nil {
		return Options{}, fmt.Errorf("sockmeta: options: %w", err)
	}
	policy := decodePolicy(&in.Policy)
	return Options{
		Cgroup:            a.cgroup,
		SlotsPerCPU:       int(in.Info.SlotsPerCPU),
		MaxSockets:        int(in.Bounds.Sockets),
		MaxSocketsPerUser: int(in.Bounds.PerUser),
		Policy:            &policy,
		Tracing:           in.Info.Features&abi.FeatureTracing != 0,
	}, nil
}

func (a *Attachment) instance() (abi.Instance, error) {
	m, err := a.mapNamed(instanceName)
	if err != nil {
		return abi.Instance{}, err
	}
	return readInstance(m)
}

// Info returns the attachment's number and the size of its receive map.
func (a *Attachment) Info() Info { return a.info }

// Native returns nil where sockets can have records as control messages
// (FeatureNative), and else why not: an ErrNotSupported.
func (a *Attachment) Native() error { return a.missing }

// Slots returns the receive map.
func (a *Attachment) Slots() *Slots { return a.slots }

// Close gives the attachment up. Sockets that opted in go on as plain sockets
// when it was the last one; metadata of what they received before can still be
// read, but in the native tier, where it is recvmsg that makes records.
func (a *Attachment) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	errs := []error{closeLinks(a.links)}
	for _, m := range a.maps {
		errs = append(errs, m.Close())
	}
	for l := range a.locals {
		errs = append(errs, l.close())
	}
	a.links, a.maps, a.locals = nil, nil, nil
	return errors.Join(errs...)
}

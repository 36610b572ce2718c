// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/sockmeta/sockmeta-go/internal/abi"
)

// A part of an attachment: programs that are loaded and attached together.
type part struct {
	feature  uint32   // of Info.Features; 0: each attachment has it
	programs []string // in the order in which they are attached
}

var (
	// Of several programs at one function the kernel runs the one first that was
	// attached last (bpf_trampoline_link_prog in kernel/bpf/trampoline.c).
	tracingPart = part{abi.FeatureTracing, []string{
		"sockmeta_udp_leave", "sockmeta_udp_leave_again", "sockmeta_udp_enter_again", "sockmeta_udp_enter",
		"sockmeta_udp6_leave", "sockmeta_udp6_leave_again", "sockmeta_udp6_enter_again", "sockmeta_udp6_enter",
	}}
	// Others may leave no room for it: 38 programs are for one function of the kernel
	// (BPF_MAX_TRAMP_LINKS).
	faultInPart = part{abi.FeatureFaultIn, []string{"sockmeta_fault_in"}}
	nativePart  = part{abi.FeatureNative, []string{
		"sockmeta_sent", "sockmeta_send_corked",
		"sockmeta_recv4", "sockmeta_recv6", "sockmeta_send4", "sockmeta_send6",
	}}
	// Sockets can opt in as soon as setsockopt answers: it comes last. The kernel
	// closes the descriptors of a process that ends in the order of their numbers,
	// and getsockopt must not answer when ingress does not log any more: it comes
	// first.
	corePart = part{0, []string{
		getsockoptProgram, "sockmeta_ingress", "sockmeta_egress",
		"sockmeta_sockops", "sockmeta_release", "sockmeta_setsockopt",
	}}
)

// getsockoptProgram answers applications, and those that join.
const getsockoptProgram = "sockmeta_getsockopt"

// localProgram is attached to devices, see AttachLocal.
const localProgram = "sockmeta_local"

// linksWith returns how many programs an attachment with these features has.
func linksWith(features uint32) int {
	n := 0
	for _, p := range []part{tracingPart, faultInPart, nativePart, corePart} {
		if features&p.feature == p.feature {
			n += len(p.programs)
		}
	}
	return n
}

// attachPart attaches the programs of a part, which have been loaded: where their
// sections in c/ say.
func (a *Attachment) attachPart(dir *os.File, loaded *programs, part part) error {
	for _, name := range part.programs {
		l, err := attachProgram(dir, loaded.object.spec.Programs[name], loaded.loaded[name])
		if err != nil {
			return err
		}
		a.links = append(a.links, l)
	}
	return nil
}

func attachProgram(dir *os.File, spec *ebpf.ProgramSpec, prog *ebpf.Program) (l link.Link, err error) {
	where := spec.SectionName
	switch spec.Type {
	case ebpf.LSM:
		l, err = link.AttachLSM(link.LSMOptions{Program: prog})
	case ebpf.Tracing:
		l, err = link.AttachTracing(link.TracingOptions{Program: prog})
	default:
		// Not AttachCgroup: it opens the path anew, which may lead to another cgroup
		// by then.
		l, err = link.AttachRawLink(link.RawLinkOptions{Target: int(dir.Fd()), Program: prog, Attach: spec.AttachType})
		where += " to " + dir.Name()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	return l, nil
}

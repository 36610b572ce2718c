// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"strings"

	"github.com/sockmeta/sockmeta-go/internal/abi"
)

// conflict returns an ErrConflict that names what the options ask for and an
// attachment does differently. Options that are zero ask for nothing.
func (o *Options) conflict(in *abi.Instance) error {
	var differ []string
	for _, d := range []struct {
		is         bool
		what       string
		has, asked any
	}{
		{o.SlotsPerCPU != 0 && uint32(o.SlotsPerCPU) != in.Info.SlotsPerCPU,
			"slots a CPU", in.Info.SlotsPerCPU, o.SlotsPerCPU},
		{o.MaxSockets != 0 && uint32(o.MaxSockets) != in.Bounds.Sockets,
			"at most sockets", in.Bounds.Sockets, o.MaxSockets},
		{o.MaxSocketsPerUser != 0 && uint32(o.MaxSocketsPerUser) != in.Bounds.PerUser,
			"at most sockets a user", in.Bounds.PerUser, o.MaxSocketsPerUser},
		// The native tier reads raw control messages without being asked.
		{o.Tracing && in.Info.Features&(abi.FeatureTracing|abi.FeatureNative) == 0,
			"tracing", false, true},
	} {
		if d.is {
			differ = append(differ, fmt.Sprintf("%s %v, asked for %v", d.what, d.has, d.asked))
		}
	}
	differ = append(differ, o.Policy.differences(&in.Policy)...)
	if differ == nil {
		return nil
	}
	return fmt.Errorf("%w: it has %s: ask for the same or for nothing, end the processes that hold it, or attach beside it (Options.Private)",
		ErrConflict, strings.Join(differ, "; "))
}

// differences says what a policy asks for that an attachment's does not have. The
// zero policy asks for nothing.
func (p *Policy) differences(has *abi.Policy) (differ []string) {
	if p.isZero() {
		return nil
	}
	asked := p.encode()
	for _, d := range []struct {
		is     bool
		format string
		has    any
		asked  any
	}{
		{asked.MarkMask != has.MarkMask, "mark mask %#x, asked for %#x", has.MarkMask, asked.MarkMask},
		{asked.PriorityMax != has.PriorityMax, "priorities up to %d, asked for %d", has.PriorityMax, asked.PriorityMax},
		{asked.Launch != has.Launch, "launch times allowed: %v, asked for %v", has.Launch != 0, asked.Launch != 0},
		{asked.Local != has.Local, "local keys %v, asked for %v", localKeys(has), localKeys(&asked)},
	} {
		if d.is {
			differ = append(differ, fmt.Sprintf(d.format, d.has, d.asked))
		}
	}
	return differ
}

func (p *Policy) isZero() bool {
	return p.MarkMask == 0 && p.MaxPriority == 0 && !p.RefuseLaunchTimes && len(p.LocalKeys) == 0
}

// localKeys are Policy.LocalKeys, in order.
func localKeys(p *abi.Policy) []int {
	keys := []int{}
	for k := range 64 * len(p.Local) {
		if p.Local[k>>6]&(1<<(k&63)) != 0 {
			keys = append(keys, k)
		}
	}
	return keys
}

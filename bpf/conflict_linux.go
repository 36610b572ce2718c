// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"strings"

	"github.com/sockmeta/sockmeta-go/internal/abi"
)

// conflict returns an ErrConflict that names what the options ask for and an
// attachment does differently. Numbers that are zero and no tracing ask for nothing.
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
	differ = append(differ, o.policyConflict(&in.Policy)...)
	if differ == nil {
		return nil
	}
	return fmt.Errorf("%w: it has %s: ask for the same, take what it has (Join), end the processes that hold it, or attach beside it (Options.Private)",
		ErrConflict, strings.Join(differ, "; "))
}

func (o *Options) policyConflict(has *abi.Policy) (differ []string) {
	asked := o.policy()
	for _, d := range []struct {
		is     bool
		format string
		has    any
		asked  any
	}{
		{asked.MarkMask != has.MarkMask, "mark mask %#x, asked for %#x", has.MarkMask, asked.MarkMask},
		{asked.PriorityMax != has.PriorityMax, "priorities up to %d, asked for %d", has.PriorityMax, asked.PriorityMax},
		{asked.Launch != has.Launch, "launch times allowed: %v, asked for %v", has.Launch != 0, asked.Launch != 0},
		{asked.Local != has.Local, "local keys %d, asked for %d", decodePolicy(has).LocalKeys, decodePolicy(&asked).LocalKeys},
	} {
		if d.is {
			differ = append(differ, fmt.Sprintf(d.format, d.has, d.asked))
		}
	}
	return differ
}

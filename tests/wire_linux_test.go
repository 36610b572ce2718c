// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testprog"
)

// noMetadata is set in the id of a datagram that is sent without, see
// testprog/c/wire.bpf.c.
const noMetadata = uint64(1) << 63

// wire is testprog's consumers of what leaves a cgroup and an interface.
type wire struct {
	*testprog.WireObjects
}

// watchWire attaches the consumers for UDP or TCP, behind the attachment's own
// programs. change may change them before they are loaded.
func watchWire(t testing.TB, a *bpf.Attachment, ns *netlab.Namespace, iface string, tcp bool, change func(*ebpf.CollectionSpec)) *wire {
	t.Helper()
	maps, err := a.Maps()
	must(t, err)
	spec, err := testprog.LoadWire()
	must(t, err)
	if change != nil {
		change(spec)
	}
	w := &wire{new(testprog.WireObjects)}
	must(t, spec.LoadAndAssign(w.WireObjects, &ebpf.CollectionOptions{MapReplacements: maps}))
	t.Cleanup(func() { _ = w.Close() })

	onTC, onCgroup := w.TcUdp, w.CgroupUdp
	if tcp {
		onTC, onCgroup = w.TcTcp, w.CgroupTcp
	}
	attachTC(t, ns, iface, ebpf.AttachTCXEgress, onTC)
	l, err := link.AttachCgroup(link.CgroupOptions{Path: a.Cgroup(), Attach: ebpf.AttachCGroupInetEgress, Program: onCgroup})
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return w
}

// counts returns what the programs have seen: at TC, and at the cgroup.
func (w *wire) counts(t testing.TB) (tc, cgroup testprog.WireWireCounts) {
	t.Helper()
	must(t, w.Tc.Get(&tc))
	must(t, w.WireObjects.Cgroup.Get(&cgroup))
	return tc, cgroup
}

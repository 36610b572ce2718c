// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/forge"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
)

// TestTruthForgerSecret looks for the host's secret in all that an application gets:
// whoever knew it could have another host make up metadata.
func TestTruthForgerSecret(t *testing.T) {
	testutil.Leaks(t)
	lab := newForgerLab(t)
	cg := testutil.EnterCgroup(t)
	a, err := bpf.Attach(bpf.Options{Cgroup: cg.Path(), SlotsPerCPU: 16})
	must(t, err)
	t.Cleanup(func() { _ = a.Close() })
	area, _ := producerArea(8)
	attachArea(t, lab.Server, lab.ServerIf, anchored(cmsg.FormatTLV, area...))
	secret := secretOfHost(t)
	if !secret.isIn(sealed(t, anchored(cmsg.FormatTLV, area...))) {
		t.Fatal("the producer does not give the secret")
	}
	for _, v := range lab.victims(t) {
		for i := range forge.Carriers {
			if lab.reaches(&forge.Carriers[i]) != nil {
				continue
			}
			last, err := lab.datagram(&forge.Carriers[i], forge.Usual, v.port, forge.Rows(36))
			must(t, err)
			_, err = v.until(last, func(_ []byte, md *cmsg.Metadata) {
				w := md.Record()
				b := unsafe.Slice((*byte)(unsafe.Pointer(w)), unsafe.Sizeof(*w))
				if secret.isIn(b) || secret.isIn(md.Raw()) {
					t.Errorf("%s, %s: the secret is in %x", v.name, forge.Carriers[i].Name, b)
				}
			})
			must(t, err)
		}
	}
	// Behind a record's end, too, where a granted application sees it.
	slots, err := ebpf.NewMapFromID(ebpf.MapID(a.Info().RxMapID))
	must(t, err)
	defer slots.Close()
	used := 0
	for i := range slots.MaxEntries() {
		b, err := slots.LookupBytes(i)
		must(t, err)
		if bytes.Contains(b, area) {
			used++
		}
		if secret.isIn(b) {
			t.Errorf("the secret is in slot %d: %x", i, b)
		}
	}
	if used == 0 {
		t.Error("no record of the producer's is in the slots")
	}
}

// isIn says whether either half of the secret is there.
func (h hostSecret) isIn(b []byte) bool {
	return bytes.Contains(b, h.Secret[:4]) || bytes.Contains(b, h.Secret[4:])
}

// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
)

// hostSecret is struct sockmeta_host of bpf/include/sockmeta.h.
type hostSecret struct {
	Secret   [8]byte
	Gap      uint32
	Reserved uint32
}

// secretOfHost returns what producers and receivers of this host share.
func secretOfHost(t testing.TB) (h hostSecret) {
	t.Helper()
	spec := ebpf.CollectionSpec{Maps: map[string]*ebpf.MapSpec{"sockmeta_secret": {}}}
	must(t, bpf.PrepareProducer(&spec))
	b, err := binary.Append(nil, binary.NativeEndian, spec.Maps["sockmeta_secret"].Contents[0].Value)
	must(t, err)
	must1(t)(binary.Decode(b, binary.NativeEndian, &h))
	return h
}

// seal returns what ends an area in front of a packet, with a secret.
func (h hostSecret) seal(f cmsg.Format) []byte {
	gap := make([]byte, h.gap())
	head := []byte{255, byte(10 + len(gap)), 0x5C, byte(f)}
	return slices.Concat(head, h.Secret[:], gap)
}

func (h hostSecret) gap() int {
	if h.Gap == 0 {
		return 0
	}
	return 4
}

// sealed returns an area as a producer puts it in front of a packet if it is to be in
// the record as it is given: with the seal in place of its anchor. Others stay as they
// are.
func sealed(t testing.TB, area []byte) []byte {
	t.Helper()
	rest, format, ok := cutAnchor(area)
	if !ok {
		return area
	}
	return slices.Concat(rest, secretOfHost(t).seal(format))
}

// sealSize is by how much that makes an area longer.
func sealSize(t testing.TB) int {
	t.Helper()
	return len(secretOfHost(t).seal(cmsg.FormatTLV)) - cmsg.AnchorLen
}

// SPDX-License-Identifier: Apache-2.0

// Package testprog holds XDP programs for the module's tests: producers whose
// metadata repeats what the packet itself says, so that a reader can tell
// whether it got the metadata of its own packet.
package testprog

import (
	"github.com/cilium/ebpf"

	"github.com/sockmeta/sockmeta-go/bpf"
)

// Keys that the programs write.
const (
	// KeyID is the u64 that a UDP datagram's payload begins with.
	KeyID = 16
	// KeyFiller is the same u64, FillerWords times.
	KeyFiller = 19
	// KeySeq is a TCP segment's sequence number, u32.
	KeySeq = 17
	// KeyLen is the number of bytes of a TCP segment's payload, u32.
	KeyLen = 18
	// KeyTag is the last four bytes of the frame's source address, u32.
	KeyTag = 20
)

// FillerWords is how often KeyFiller's value holds the datagram's id, and
// FillerLeast how many bytes of it there are where the kernel allows areas of 32 bytes
// only.
const (
	FillerWords = 20
	FillerLeast = 4
)

// Prepared returns a collection with the host's secret, as bpf.PrepareProducer leaves
// it.
func Prepared(spec *ebpf.CollectionSpec, err error) (*ebpf.CollectionSpec, error) {
	if err == nil {
		err = bpf.PrepareProducer(spec)
	}
	return spec, err
}

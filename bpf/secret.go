// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"

	"github.com/cilium/ebpf"
)

// secretName is the map of include/sockmeta.h that has the host's secret, and where
// it is pinned on a bpffs.
const secretName = "sockmeta_secret"

// PrepareProducer gives the host's secret to programs that were written with
// include/sockmeta.h, so that receivers know their areas from made up ones. It is to
// be called before they are loaded:
//
//	spec, err := loadMyProducer() // made by bpf2go
//	err = bpf.PrepareProducer(spec)
//	err = spec.LoadAndAssign(&objs, nil)
//
// Areas of producers without the secret are flagged (cmsg.FlagUnanchored).
//
// The secret is random, and the same for all processes of the host until it boots: it
// is pinned as /sys/fs/bpf/sockmeta_secret or, without a bpffs there, in the file
// /run/sockmeta_secret, for root. A process that can read neither has a secret of its
// own, which its own producers and attachments share.
func PrepareProducer(spec *ebpf.CollectionSpec) error {
	if err := prepare(spec); err != nil {
		return fmt.Errorf("sockmeta: prepare producer: %w", err)
	}
	return nil
}

// prepare is PrepareProducer.
func prepare(spec *ebpf.CollectionSpec) error {
	m, ok := spec.Maps[secretName]
	if !ok {
		return fmt.Errorf("no map %s: the programs are not written with this version of sockmeta.h", secretName)
	}
	h, err := hostRecord()
	if err != nil {
		return err
	}
	m.Pinning = ebpf.PinNone
	m.Contents = []ebpf.MapKV{{Key: uint32(0), Value: &h}}
	return nil
}

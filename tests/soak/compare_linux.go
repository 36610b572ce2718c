// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/sockmeta/sockmeta-go/internal/testprog"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// errUntold is the error where there may have been a record.
var errUntold = fmt.Errorf("%w, or none any more", sockmeta.ErrNoMetadata)

// compare counts what came with a payload, whose id the producer has copied into
// the metadata. An aggregate has the metadata of its first segment.
func compare(l *Ledger, what string, payload []byte, md *sockmeta.Metadata, err error, aggregate bool) {
	switch {
	case errors.Is(err, errUntold):
		l.add(what+" lost: not told why", 1)
		return
	case errors.Is(err, sockmeta.ErrOverrun):
		l.add(what+" lost: overrun", 1)
		return
	case errors.Is(err, sockmeta.ErrNoMetadata):
		l.add(what+" lost: no record", 1)
		return
	case errors.Is(err, sockmeta.ErrNotSupported):
		l.add(what+" lost: not supported", 1)
		return
	case err != nil:
		l.violate("%s: %v", what, err)
		return
	}
	want := binary.NativeEndian.Uint64(payload)
	var sender sockmeta.Metadata
	if md.Sender(&sender) {
		// A datagram that was sent without has bit 63 set.
		if id, ok := sender.Uint64(testprog.KeyID); ok && id == want {
			l.add(what+" sender's matched", 1)
		} else {
			l.violate("%s: datagram %#x has its sender's metadata %v", what, want, &sender)
		}
	}
	id, ok := md.Uint64(testprog.KeyID)
	filler, filled := md.Bytes(testprog.KeyFiller)
	if !ok && !filled {
		if aggregate {
			l.add(what+" without area, aggregates", 1)
		} else {
			l.add(what+" without area", 1)
		}
		return
	}
	good := id == want && len(filler) == 8*testprog.FillerWords
	for ; good && len(filler) > 0; filler = filler[8:] {
		good = binary.NativeEndian.Uint64(filler) == want
	}
	if good {
		l.add(what+" matched", 1)
	} else {
		l.violate("%s: datagram %#x has metadata %v", what, want, md)
	}
}

// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"errors"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
)

// What metadata calls may say, for errors.Is.
var (
	// ErrNotSupported: there is no metadata here; the error says why.
	ErrNotSupported = bpf.ErrNotSupported
	// ErrNoMetadata: this datagram, or these bytes, came without a record.
	ErrNoMetadata = bpf.ErrNoMetadata
	// ErrOverrun: the record was lost, because newer packets took its place
	// before it was asked for.
	ErrOverrun = bpf.ErrOverrun
	// ErrTruncated: the record is there, but its end was cut off, or all of it
	// (MSG_CTRUNC).
	ErrTruncated = cmsg.ErrTruncated
)

// IsMetadataError reports whether err is about metadata alone: a call that
// returned it has delivered its payload, or sent it.
func IsMetadataError(err error) bool {
	return errors.Is(err, ErrNoMetadata) || errors.Is(err, ErrOverrun) ||
		errors.Is(err, ErrNotSupported) || errors.Is(err, ErrTruncated) ||
		errors.Is(err, ErrRefused) || errors.Is(err, cmsg.ErrMalformed) || errors.Is(err, cmsg.ErrVersion)
}

// SPDX-License-Identifier: Apache-2.0

package cmsg

import "errors"

// The errors of this package. Functions wrap them to say what and where: test
// with [errors.Is].
var (
	// ErrMalformed: bytes that do not have the form they should have, a
	// control message, record or TLV that says it is longer than its buffer
	// for one.
	ErrMalformed = errors.New("sockmeta: malformed")

	// ErrTruncated: bytes that are right as far as they go, and end early,
	// in most cases because a buffer for control messages was too small.
	ErrTruncated = errors.New("sockmeta: truncated")

	// ErrTooLarge: what was to be written does not fit.
	ErrTooLarge = errors.New("sockmeta: too large")

	// ErrKeyReserved: a TLV key that has a meaning in the area itself,
	// [KeyPad] or [KeyAnchor].
	ErrKeyReserved = errors.New("sockmeta: key is reserved")

	// ErrVersion: a record of a version that was never given out.
	ErrVersion = errors.New("sockmeta: unknown record version")

	// ErrFormat: an area whose format is not what the operation needs, or
	// not what its anchor says.
	ErrFormat = errors.New("sockmeta: wrong area format")
)

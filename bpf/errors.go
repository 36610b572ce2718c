// SPDX-License-Identifier: Apache-2.0

package bpf

import "errors"

type unsupportedError struct{}

func (unsupportedError) Error() string { return "metadata is not supported" }

// Is makes ErrNotSupported an errors.ErrUnsupported, too.
func (unsupportedError) Is(target error) bool { return target == errors.ErrUnsupported }

var (
	// ErrNotSupported says that there is no metadata here at all: the kernel
	// lacks something, nobody attached the programs and this process may not,
	// or the socket is of a kind that carries none. The error that wraps it
	// says which, and what would mend it.
	ErrNotSupported error = unsupportedError{}

	// ErrNoMetadata says that this datagram or these bytes came without a
	// record: they arrived before the socket opted in or after the programs
	// were detached, or nothing has been read yet.
	ErrNoMetadata = errors.New("no metadata")

	// ErrOverrun says that there was a record, and that newer packets have
	// taken its place because it was asked for too late.
	ErrOverrun = errors.New("metadata overrun by newer packets")

	// ErrTooManySockets is in the ErrNotSupported of a socket that went without
	// metadata because of Options.MaxSockets or MaxSocketsPerUser; it says which.
	ErrTooManySockets = errors.New("too many sockets with metadata")

	// ErrConflict says that Attach found programs attached, which others hold, that
	// do not have what its options ask for. The error that wraps it names the
	// options, what they are and what was asked for.
	ErrConflict = errors.New("what is attached to the cgroup has other options")

	// ErrNotAttached says that Join found nothing to join at the cgroup.
	ErrNotAttached = errors.New("nothing is attached to the cgroup that this process can join")
)

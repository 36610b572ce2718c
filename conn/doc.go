// SPDX-License-Identifier: Apache-2.0

// Package conn wraps the connections of package net, so that applications read
// the metadata of what they receive and give metadata to what they send.
// Applications import package sockmeta, which makes these connections and names
// their types.
//
// A wrapper has every method of the type that it wraps and behaves as that
// type does: the same errors, deadlines and addresses, net.ErrClosed after
// Close. Where metadata cannot be had, for want of privilege or kernel, it is a
// plain socket whose metadata calls return ErrNotSupported and why.
//
// What does not work: reading from the file descriptor behind the wrapper's
// back (SyscallConn, File, and what builds on them, such as the ReadBatch of
// golang.org/x/net's PacketConns, in place of the wrapper's own) shows sockmeta's
// own control message, a SCM_TIMESTAMPING whose first time has bit 62 set, and
// Metadata knows nothing of what was read.
package conn

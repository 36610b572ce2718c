// SPDX-License-Identifier: Apache-2.0

// Package cmsg reads and writes control messages, the ancillary data of
// recvmsg(2) and sendmsg(2), and what sockmeta carries in them: the record of a
// packet's metadata and the TLV area that XDP programs wrote in front of
// it.
//
// Three layers can be used each for itself:
//
//   - control messages of any level, in any order: [Parse], [All], [Find],
//     [Append], [Put] and [Writer];
//   - the TLV area, as described in bpf/include/sockmeta.h: [TLVs],
//     [AppendTLV], [PrependTLV], [AppendAnchor];
//   - the record, struct sockmeta_record in bpf/include/sockmeta_abi.h:
//     [Metadata], and [FindMetadata] to take it out of control messages.
//
// The package makes no system calls and compiles everywhere; control messages
// have Linux's layout on all systems. Reading and writing allocate nothing, but
// for the Append functions when the slice they are given is too small, and for
// text and errors.
//
// Slices that functions return alias what they were read from, unless stated
// otherwise. Nothing here locks: a buffer or a Metadata may be read by many
// goroutines as long as none writes to it.
package cmsg

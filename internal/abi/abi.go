// SPDX-License-Identifier: Apache-2.0

// Package abi is the border between the BPF programs and user space: the structs and
// constants of bpf/include/sockmeta_abi.h, bpf/include/sockmeta.h and the maps, in host
// byte order. It is generated from the C headers, and imports the standard library
// alone, so that all other packages can build on it.
package abi

//go:generate go run ./gen

// SOL_BPF is the level of sockmeta's socket options and control messages. The
// number is the one that the talk "Marking Packets With Rich Metadata" (LPC
// 2024) proposes; no released kernel uses it.
const SOL_BPF = 0xEB9F

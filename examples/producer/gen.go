// SPDX-License-Identifier: Apache-2.0

package main

// The second line gives what bpf2go made one order of bytes, since CI compares it. Your
// program does without, and has the headers elsewhere: docs/guide-c.md.

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel,bpfeb -cflags "-O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu -I../../bpf/include" source c/source.bpf.c
//go:generate go run ../../internal/btforder source_bpfeb.o source_bpfel.o

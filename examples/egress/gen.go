// SPDX-License-Identifier: Apache-2.0

package main

// As in ../producer/gen.go.

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel,bpfeb -cflags "-O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu -I../../bpf/include" -type traffic -no-global-types account c/account.bpf.c
//go:generate go run ../../internal/btforder account_bpfeb.o account_bpfel.o

// SPDX-License-Identifier: Apache-2.0

package bpf

// The objects are committed, so that building the module takes Go alone; so are the Go
// types that mirror their structs (internal/abi). After a change below c/ or include/, run
// "go generate ./..." on Debian 12 with clang-19, llvm-19, libbpf-dev and
// linux-libc-dev; CI compares, so the compiler's version matters.

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel,bpfeb -cflags "-O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu" -no-global-types sockmeta c/sockmeta.bpf.c
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel,bpfeb -cflags "-O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu" -no-global-types producer c/producer.bpf.c
//go:generate go run ../internal/btforder producer_bpfeb.o producer_bpfel.o sockmeta_bpfeb.o sockmeta_bpfel.o

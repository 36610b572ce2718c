// SPDX-License-Identifier: Apache-2.0

package bpf

// The objects are committed, so that building the module takes Go alone; so are the Go
// types that mirror their structs (internal/abi). After a change below c/ or include/, run
// "go generate ./..." on Debian 12 with clang-19, llvm-19, libbpf-dev and
// linux-libc-dev; CI compares, so the compiler's version matters.

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel,bpfeb -cflags "-O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu" -no-global-types ingress c/ingress.bpf.c
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel,bpfeb -cflags "-O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu" -no-global-types sockopt c/sockopt.bpf.c
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel,bpfeb -cflags "-O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu" -no-global-types sockops c/sockops.bpf.c
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel,bpfeb -cflags "-O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu" -no-global-types release c/release.bpf.c
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel,bpfeb -cflags "-O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu" -no-global-types producer c/producer.bpf.c
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel,bpfeb -cflags "-O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu" -no-global-types egress c/egress.bpf.c
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel,bpfeb -cflags "-O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu" -no-global-types local c/local.bpf.c
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel,bpfeb -cflags "-O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu" -no-global-types tracing c/tracing.bpf.c
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel,bpfeb -cflags "-O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu" -no-global-types native c/native.bpf.c
//go:generate go run ../internal/btforder egress_bpfeb.o egress_bpfel.o ingress_bpfeb.o ingress_bpfel.o local_bpfeb.o local_bpfel.o native_bpfeb.o native_bpfel.o producer_bpfeb.o producer_bpfel.o release_bpfeb.o release_bpfel.o sockops_bpfeb.o sockops_bpfel.o sockopt_bpfeb.o sockopt_bpfel.o tracing_bpfeb.o tracing_bpfel.o

// SPDX-License-Identifier: Apache-2.0

package bpf

// The objects and the Go types that mirror their structs are committed, so that
// building the module takes Go alone. After a change below c/ or include/, run
// "go generate ./bpf" on Debian 12 with clang-19, llvm-19, libbpf-dev and
// linux-libc-dev; CI compares, so the compiler's version matters.

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel,bpfeb -cflags "-O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu" -no-global-types ingress c/ingress.bpf.c
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel,bpfeb -cflags "-O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu" -type sockmeta_record -type sockmeta_slot -type sockmeta_answer -type sockmeta_info -type sockmeta_enable -type sockmeta_instance -type sockmeta_tx_slot -type sockmeta_tx_slots -type sockmeta_tx_info -type sockmeta_policy -type sockmeta_counts -type sockmeta_room -type sockmeta_bounds -type sockmeta_feature -type sockmeta_enable_flag -type sockmeta_format -type sockmeta_valid -type sockmeta_flag -type sockmeta_opt -type sockmeta_const -type sockmeta_key -type sockmeta_anchor -type sockmeta_host sockopt c/sockopt.bpf.c
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel,bpfeb -cflags "-O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu" -no-global-types sockops c/sockops.bpf.c
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel,bpfeb -cflags "-O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu" -no-global-types release c/release.bpf.c
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel,bpfeb -cflags "-O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu" -no-global-types producer c/producer.bpf.c
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel,bpfeb -cflags "-O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu" -no-global-types egress c/egress.bpf.c
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel,bpfeb -cflags "-O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu" -no-global-types local c/local.bpf.c
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel,bpfeb -cflags "-O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu" -no-global-types tracing c/tracing.bpf.c
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel,bpfeb -cflags "-O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu" -no-global-types native c/native.bpf.c

// SPDX-License-Identifier: Apache-2.0

// Soak runs random mixes of sockets, senders and attachments between two network
// namespaces for a given time, and of applications that attach by themselves, and
// checks all the while that no metadata is another packet's, that every payload is
// accounted for, and that nothing grows:
//
//	go run ./tests/soak -duration 10m
//
// It prints what it counted and exits with 1 after any violation; -seed repeats
// the choices of a run, though not the kernel's scheduling. An interrupt ends it
// after the round. Memory is judged strictly from 60 rounds on, which take some
// minutes, and that everything came up from 200 on. It needs root.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	runRole()
	duration := flag.Duration("duration", time.Minute, "how long to begin new rounds")
	seed := flag.Uint64("seed", 0, "what to choose by (default random)")
	flag.Parse()
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the process at once. Its children notice.
	context.AfterFunc(ctx, stop)
	l, err := soak(ctx, *duration, *seed, os.Stdout)
	fmt.Print(l)
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
	}
	if err != nil || len(l.Violations) != 0 {
		fmt.Fprintf(os.Stderr, "soak: to repeat: -seed %d\n", *seed)
		os.Exit(1)
	}
}

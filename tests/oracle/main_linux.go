// SPDX-License-Identifier: Apache-2.0

// Oracle has two hosts talk over a wire of its own, which loses, delays, reorders,
// duplicates, splits, merges, corrupts and makes up frames, and asks for the metadata
// of all that comes:
//
//	go run ./tests/oracle -seeds 50 -bytes 10000000
//
// Every frame carries bytes of its own, and its number as metadata. So what the
// application has read tells which frame brought each byte, and each answer is right,
// an error, flagged, or a violation. It prints what it counted and exits with 1 after
// any violation; -seed repeats the choices of a run, though not the kernel's
// scheduling. With -honest the wire does no more than lose, reorder and duplicate one
// of a hundred, and the question is how many reads have a record. It needs root.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

func main() {
	seeds := flag.Int("seeds", 1, "how many seeds")
	seed := flag.Uint64("seed", 0, "the first seed (default random)")
	size := flag.Int("bytes", 10_000_000, "bytes that each seed's connections carry")
	labs := flag.Int("labs", 3, "how many seeds at once")
	honest := flag.Bool("honest", false, "measure how many reads have a record")
	only := flag.Int("connection", -1, "the only connection to make of each seed's (default all)")
	verbose := flag.Bool("v", false, "tell of each seed's connections")
	flag.Parse()
	if *seed == 0 {
		*seed = rand.Uint64() >> 32
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	var err error
	var violations int
	if *honest {
		violations, err = measure(ctx, *size)
	} else {
		violations, err = try(ctx, *seed, *seeds, *size, *labs, *only, *verbose)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "oracle:", err)
	}
	if err != nil || violations > 0 {
		os.Exit(1)
	}
}

// try runs seeds, and returns how many answers were wrong.
func try(ctx context.Context, seed uint64, seeds, size, labs, only int, verbose bool) (int, error) {
	attachment, err := attach()
	if err != nil {
		return 0, err
	}
	defer attachment.close()
	fmt.Printf("oracle: %d seeds from -seed %d, -bytes %d\n", seeds, seed, size)
	begin := time.Now()
	var t tally
	next := make(chan uint64)
	errs := make(chan error, labs)
	var wg sync.WaitGroup
	for range labs {
		wg.Go(func() {
			l, err := newLab()
			for s := range next {
				if err == nil {
					began := time.Now()
					err = l.runPlan(newPlan(s, size), only, &t, fmt.Sprintf("-seed %d", s), verbose)
					fmt.Printf("oracle: -seed %d: %v, %d wrong so far\n", s, time.Since(began).Round(time.Millisecond), t.wrong())
				}
			}
			if l != nil {
				err = joinClose(err, l)
			}
			errs <- err
		})
	}
	for i := 0; i < seeds && ctx.Err() == nil; i++ {
		next <- seed + uint64(i)
	}
	close(next)
	wg.Wait()
	for range labs {
		if e := <-errs; e != nil && err == nil {
			err = e
		}
	}
	report(&t)
	fmt.Printf("%v\n", time.Since(begin).Round(time.Millisecond))
	return t.wrong(), err
}

// report prints a tally.
func report(t *tally) {
	fmt.Print(t)
	for _, s := range t.troubles {
		fmt.Println("trouble:", s)
	}
	for _, v := range t.violations {
		fmt.Println("VIOLATION:", v)
	}
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"sync"
	"text/tabwriter"
	"time"
)

// grace is how long a target that was told to stop may take.
const grace = 30 * time.Second

type options struct {
	time time.Duration
	jobs int
	run  *regexp.Regexp
	keep int
}

func main() {
	opts, err := parse(os.Args[1:])
	if err != nil {
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, opts); err != nil {
		fmt.Fprintln(os.Stderr, "fuzz:", err)
		os.Exit(1)
	}
}

func parse(args []string) (opts options, err error) {
	flags := flag.NewFlagSet("fuzz", flag.ContinueOnError)
	flags.DurationVar(&opts.time, "time", 20*time.Second, "how long each target runs")
	flags.IntVar(&opts.jobs, "jobs", 2, "how many targets run side by side")
	flags.IntVar(&opts.keep, "keep", 0, "how many inputs a target may have below testdata/fuzz, to add from the build cache")
	opts.run = regexp.MustCompile("")
	flags.Func("run", "`regexp`: which targets, by directory and name", func(s string) (err error) {
		opts.run, err = regexp.Compile(s)
		return err
	})
	err = flags.Parse(args)
	if err == nil && (flags.NArg() > 0 || opts.jobs < 1 || opts.time <= 0) {
		flags.Usage()
		err = errors.New("usage")
	}
	return opts, err
}

func run(ctx context.Context, opts options) error {
	root, err := findRoot()
	if err != nil {
		return err
	}
	all, err := findTargets(root)
	if err != nil {
		return err
	}
	var targets []target
	for _, t := range all {
		if opts.run.MatchString(t.String()) {
			targets = append(targets, t)
		}
	}
	if targets == nil {
		return fmt.Errorf("no target of %d is meant", len(all))
	}
	results := fuzzAll(ctx, targets, opts)

	printTable(os.Stdout, targets, results)
	failed := 0
	for i, r := range results {
		if r.failed() {
			failed++
			printFailure(os.Stdout, targets[i], r)
		}
	}
	if opts.keep > 0 && ctx.Err() == nil {
		for _, t := range targets {
			if err := keepInputs(t, opts.keep); err != nil {
				return err
			}
		}
	}
	switch {
	case failed > 0:
		return fmt.Errorf("%d of %d targets failed", failed, len(targets))
	case ctx.Err() != nil:
		return errors.New("interrupted")
	}
	return nil
}

// fuzzAll runs the targets, and returns one result for each.
func fuzzAll(ctx context.Context, targets []target, opts options) []result {
	results := make([]result, len(targets))
	next := make(chan int)
	var wg sync.WaitGroup
	for range opts.jobs {
		wg.Go(func() {
			for i := range next {
				if results[i] = (result{status: statusStopped}); ctx.Err() == nil {
					results[i] = fuzz(ctx, targets[i], opts.time)
				}
				fmt.Fprintf(os.Stderr, "%s: %s\n", targets[i], results[i].status)
			}
		})
	}
	for i := range targets {
		next <- i
	}
	close(next)
	wg.Wait()
	return results
}

// fuzz runs one target. Looking for a smaller input that is as interesting may
// take no more than a second each time, or a short run would do little else.
func fuzz(ctx context.Context, t target, d time.Duration) result {
	cmd := exec.CommandContext(ctx, "go", "test", "-v", "-run", "^$", "-fuzz", "^"+t.name+"$",
		"-fuzztime", d.String(), "-fuzzminimizetime", "1s", "-parallel", "1", "./"+filepath.ToSlash(t.dir))
	cmd.Dir = t.module
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	inGroup(cmd)
	cmd.WaitDelay = grace
	err := cmd.Run()
	return parseOutput(out.String(), err != nil, ctx.Err() != nil)
}

func printTable(w io.Writer, targets []target, results []result) {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "target\texecs\tnew interesting\tresult")
	for i, t := range targets {
		fmt.Fprintf(tw, "%s\t%d\t%d\t%s\n", t, results[i].execs, results[i].found, results[i].status)
	}
	_ = tw.Flush()
}

func printFailure(w io.Writer, t target, r result) {
	fmt.Fprintf(w, "\n== %s\n%s", t, r.output)
	if r.input == "" {
		return
	}
	file := filepath.Join(t.module, t.dir, filepath.FromSlash(r.input))
	input, err := os.ReadFile(file)
	if err != nil {
		input = []byte(err.Error() + "\n")
	}
	fmt.Fprintf(w, "-- %s\n%s", file, input)
}

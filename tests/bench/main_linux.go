// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"syscall"
	"time"
)

const (
	defaultRounds = 5000
	shortRounds   = 500
	shortScale    = 10
	// heap is what the collector leaves alone: no comparison makes as much garbage.
	heap = 4 << 30
)

// errMissed: measured, and not as fast as it should be.
var errMissed = errors.New("ratios miss their targets")

type options struct {
	run            *regexp.Regexp
	rounds         int
	short, list    bool
	tolerance      float64
	json, svg, doc string
}

func main() {
	opts, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	err = run(ctx, opts, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
	os.Exit(exitCode(err))
}

func exitCode(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errMissed):
		return 1
	}
	return 2
}

func parse(args []string) (opts options, err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	opts.run = regexp.MustCompile("")
	flags.Func("run", "`regexp`: which cases (-list names them)", func(s string) (err error) {
		opts.run, err = regexp.Compile(s)
		return err
	})
	flags.IntVar(&opts.rounds, "rounds", 0,
		fmt.Sprintf("how often each side is timed (default %d, with -short %d)", defaultRounds, shortRounds))
	flags.BoolVar(&opts.short, "short", false, "less of everything: under a minute, and less exact")
	flags.Float64Var(&opts.tolerance, "tolerance", 0,
		"by how `much` a ratio may be worse than its target, 1 being by twice, for machines that do other things")
	flags.StringVar(&opts.json, "json", "",
		"write the results as JSON to a `file`, - for standard output instead of the table")
	flags.StringVar(&opts.svg, "svg", "", "draw the ratios to a `file`")
	flags.StringVar(&opts.doc, "doc", "", "write method and results as a page to a `file`")
	flags.BoolVar(&opts.list, "list", false, "name the cases")
	err = flags.Parse(args)
	if err == nil && (flags.NArg() > 0 || opts.rounds < 0 || opts.tolerance < 0) {
		flags.Usage()
		err = errors.New("usage")
	}
	if opts.rounds == 0 {
		opts.rounds = defaultRounds
		if opts.short {
			opts.rounds = shortRounds
		}
	}
	return opts, err
}

func run(ctx context.Context, opts options, out io.Writer) error {
	chosen := casesMatching(opts.run)
	if chosen == nil {
		return fmt.Errorf("no case of %d is meant", len(cases))
	}
	if opts.list {
		for _, c := range chosen {
			fmt.Fprintln(out, c.name)
		}
		return nil
	}
	scale := 1
	if opts.short {
		scale = shortScale
	}
	m, err := newMeter(ctx, opts.rounds, scale)
	if err != nil {
		return err
	}
	begin := time.Now()
	rows, err := measure(m, chosen, os.Stderr)
	for i := range rows {
		rows[i].Verdict = rows[i].judge(opts.tolerance)
	}
	if err := errors.Join(err, m.close()); err != nil {
		// What was measured up to there is not lost.
		return errors.Join(err, printTable(out, rows))
	}
	results := Results{Machine: thisMachine(), Rounds: opts.rounds, Short: opts.short, When: begin,
		Took: time.Since(begin), Rows: rows}
	if err := write(results, opts, out); err != nil {
		return err
	}
	if missed := misses(rows); missed != nil {
		return fmt.Errorf("%d of %d %w", len(missed), len(rows), errMissed)
	}
	return nil
}

// measure runs the cases. The garbage collector runs when interleave calls it.
func measure(m *meter, chosen []benchCase, progress io.Writer) (rows []Row, err error) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(heap))
	for _, c := range chosen {
		begin := time.Now()
		found, err := c.run(m)
		if err := errors.Join(err, m.end()); err != nil {
			return rows, fmt.Errorf("%s: %w", c.name, err)
		}
		rows = append(rows, found...)
		fmt.Fprintf(progress, "bench: %s: %v\n", c.name, time.Since(begin).Round(time.Millisecond))
	}
	return rows, nil
}

// pictureOf is where the page finds the picture.
func pictureOf(opts options) string {
	if opts.svg == "" {
		return ""
	}
	rel, err := filepath.Rel(filepath.Dir(opts.doc), opts.svg)
	if err != nil {
		return opts.svg
	}
	return filepath.ToSlash(rel)
}

// write shows the results where they are wanted.
func write(results Results, opts options, out io.Writer) error {
	var errs []error
	data, err := json.MarshalIndent(results, "", "\t")
	if err != nil {
		return err
	}
	data = append(data, '\n')
	if opts.json == "-" {
		_, err := out.Write(data)
		errs = append(errs, err)
	} else {
		errs = append(errs, printTable(out, results.Rows))
	}
	for _, file := range []struct {
		name string
		data []byte
	}{
		{opts.json, data},
		{opts.svg, picture(results.Rows)},
		{opts.doc, page(results, pictureOf(opts))},
	} {
		if file.name != "" && file.name != "-" {
			errs = append(errs, os.WriteFile(file.name, file.data, 0o644))
		}
	}
	return errors.Join(errs...)
}

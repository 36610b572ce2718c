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
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

type options struct {
	kernels, packages []string
	cache             string
	update            bool
	timeout           time.Duration
	tests             testSettings
	live              io.Writer
}

func main() {
	if os.Getpid() == 1 && os.Getenv(guestEnv) != "" {
		guest()
		return
	}
	ok, err := host()
	if err != nil {
		fmt.Fprintln(os.Stderr, "vm:", err)
	}
	if !ok {
		os.Exit(1)
	}
}

// host runs the command and says whether all is well on all kernels.
func host() (ok bool, err error) {
	var o options
	kernels := flag.String("kernels", "6.12,7.3", "kernels to boot, by the start of their version")
	packages := flag.String("packages", "./...", "packages to test, as for go list")
	flag.StringVar(&o.tests.run, "run", "", "run only the tests that match, as for go test")
	flag.DurationVar(&o.tests.timeout, "test-timeout", 20*time.Minute, "how long a package's tests may take")
	flag.DurationVar(&o.timeout, "timeout", 40*time.Minute, "how long a kernel may run")
	flag.StringVar(&o.cache, "cache", "", "directory for what was downloaded (default sockmeta-vm in the user's cache directory)")
	flag.BoolVar(&o.update, "update", false, "look for newer kernels")
	verbose := flag.Bool("v", false, "print the tests' output as they run")
	asJSON := flag.Bool("json", false, "print results as JSON")
	flag.Parse()
	o.kernels = strings.Split(*kernels, ",")
	o.packages = strings.Split(*packages, ",")
	if *verbose {
		o.live = os.Stderr
	}
	if o.cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return false, err
		}
		o.cache = filepath.Join(dir, "sockmeta-vm")
	}
	if o.cache, err = filepath.Abs(o.cache); err != nil {
		return false, err
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	runs, err := o.runAll(ctx)
	if err != nil {
		return false, err
	}
	if *asJSON {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "\t")
		err = enc.Encode(runs)
	} else {
		err = printTable(os.Stdout, runs)
	}
	ok = err == nil
	for _, r := range runs {
		ok = ok && len(r.bad()) == 0 && len(r.Problems) == 0
	}
	return ok, err
}

// runAll runs the tests on all kernels.
func (o *options) runAll(ctx context.Context) ([]*run, error) {
	if missing := missingPackages(); len(missing) != 0 {
		progress("install %s", strings.Join(missing, ", "))
		if err := install(ctx, missing...); err != nil {
			return nil, err
		}
	}
	kernels, err := o.getKernels(ctx)
	if err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp("", "sockmeta-vm-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	progress("build")
	if err := buildInit(ctx, filepath.Join(tmp, "init")); err != nil {
		return nil, err
	}
	if err := buildRawsend(ctx, filepath.Join(tmp, "rawsend")); err != nil {
		return nil, err
	}
	tests, err := buildTests(ctx, tmp, o.packages)
	if err != nil {
		return nil, err
	}
	if len(tests) == 0 {
		return nil, errors.New("no tests in " + strings.Join(o.packages, ", "))
	}

	runs := make([]*run, len(kernels))
	// A machine keeps one core busy.
	slots := make(chan struct{}, runtime.NumCPU())
	var wg sync.WaitGroup
	for i, k := range kernels {
		runs[i] = &run{Kernel: k.series, Release: k.release}
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			// What one kernel is in the way of doesn't concern the others.
			if err := o.runKernel(ctx, tmp, k, tests, runs[i]); err != nil {
				runs[i].Problems = append(runs[i].Problems, err.Error())
			}
		})
	}
	wg.Wait()
	return runs, nil
}

// runKernel runs the tests on a kernel and notes in r how they went.
func (o *options) runKernel(ctx context.Context, tmp string, k kernel, tests []testBinary, r *run) error {
	progress("%s: boot %s", k.series, k.release)
	modules, err := loadModules(ctx, k.modules, wantedModules)
	if err != nil {
		return err
	}
	m := machine{
		kernel:    k,
		initramfs: filepath.Join(tmp, k.series+".cpio"),
		// Kept for who wants to know what the kernel has to say.
		console: filepath.Join(o.cache, "console-"+k.series+".log"),
		live:    o.live,
	}
	if err := writeInitramfs(ctx, m.initramfs, filepath.Join(tmp, "init"), filepath.Join(tmp, "rawsend"), modules, tests, o.tests); err != nil {
		return err
	}
	defer os.Remove(m.initramfs)

	limited, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	start := time.Now()
	t, boot, err := m.boot(limited)
	r.BootSeconds, r.Seconds = boot.Seconds(), time.Since(start).Seconds()
	progress("%s: done in %.0f s", k.series, r.Seconds)
	if err != nil {
		r.Problems = append(r.Problems, err.Error())
	}
	if t == nil {
		return nil
	}
	r.Problems = append(r.Problems, t.errors...)
	found, err := complaints(m.console)
	if err != nil {
		return err
	}
	if len(found) != 0 {
		r.Problems = append(r.Problems, strings.Join(found, "\n")+"\n(see "+m.console+")")
	}
	for i, b := range tests {
		if i >= len(t.sections) {
			r.Results = append(r.Results, result{Package: b.pkg, Outcome: failed, Reason: "not run"})
			continue
		}
		results, err := sectionResults(context.WithoutCancel(ctx), t.sections[i])
		if err != nil {
			return err
		}
		r.Results = append(r.Results, results...)
	}
	if len(r.Results) == 0 {
		return errors.New("no test was run")
	}
	return nil
}

// getKernels returns the kernels that were asked for, which are downloaded
// unless they're in the cache.
func (o *options) getKernels(ctx context.Context) ([]kernel, error) {
	dir := filepath.Join(o.cache, "kernels")
	var a *apt
	var kernels []kernel
	for _, series := range o.kernels {
		if k, ok := cachedKernel(dir, series); ok && !o.update {
			kernels = append(kernels, k)
			continue
		}
		if a == nil {
			progress("fetch package lists")
			var err error
			if a, err = openApt(ctx, filepath.Join(o.cache, "apt")); err != nil {
				return nil, err
			}
		}
		progress("%s: fetch", series)
		k, err := fetchKernel(ctx, a, dir, series)
		if err != nil {
			return nil, err
		}
		kernels = append(kernels, k)
	}
	return kernels, nil
}

func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "vm: "+format+"\n", args...)
}

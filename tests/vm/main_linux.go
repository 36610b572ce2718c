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
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

type options struct {
	targets  []target
	packages []string
	append   string
	cache    string
	update   bool
	timeout  time.Duration
	tests    testSettings
	live     io.Writer
	// built are programs that tests run, made for the virtual machine.
	built map[string]string
	// kmods are the kernel module, by the kernel's series.
	kmods map[string]module
}

const allPackages = "./..."

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
	targets := flag.String("kernels", defaultTargets, "kernels to boot, by the start of their version, or host for the one that runs;\n"+
		"with +lockdown or +cgroup1 in a machine so restricted, with +native or +kmod in one that has the kernel module")
	packages := flag.String("packages", allPackages, "packages to test, as for go list")
	flag.StringVar(&o.append, "append", "", "add to the command line of the kernels that are booted")
	flag.StringVar(&o.tests.run, "run", "", "run only the tests that match, as for go test")
	flag.BoolVar(&o.tests.short, "short", true, "run the tests with -short, as emulated machines are slow")
	flag.DurationVar(&o.tests.timeout, "test-timeout", 40*time.Minute, "how long a package's tests may take")
	flag.DurationVar(&o.timeout, "timeout", 60*time.Minute, "how long a kernel may run")
	flag.StringVar(&o.cache, "cache", "", "directory for what was downloaded (default sockmeta-vm in the user's cache directory)")
	flag.BoolVar(&o.update, "update", false, "look for newer kernels")
	verbose := flag.Bool("v", false, "print the tests' output as they run")
	readme := flag.String("readme", "", "compare the support table in this `file` with what the tests show")
	write := flag.Bool("write", false, "write the table there instead")
	asJSON := flag.Bool("json", false, "print results as JSON")
	flag.Parse()
	if o.targets, err = parseTargets(*targets); err != nil {
		return false, err
	}
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
	if *targets == defaultTargets && *packages == allPackages && o.tests.run == "" {
		for _, f := range flaws(runs) {
			fmt.Fprintln(os.Stderr, "vm:", f)
			ok = false
		}
	}
	if *readme != "" && err == nil {
		err = updateReadme(*readme, runs, *write)
	}
	return ok && err == nil, err
}

// runAll runs the tests on all kernels.
func (o *options) runAll(ctx context.Context) ([]*run, error) {
	tmp, err := os.MkdirTemp("", "sockmeta-vm-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	var kernels map[string]kernel
	if slices.ContainsFunc(o.targets, target.booted) {
		if kernels, err = o.prepareMachines(ctx, tmp); err != nil {
			return nil, err
		}
	}
	progress("build")
	tests, err := buildTests(ctx, tmp, o.packages)
	if err != nil {
		return nil, err
	}
	if len(tests) == 0 {
		return nil, errors.New("no tests in " + strings.Join(o.packages, ", "))
	}

	runs := make([]*run, len(o.targets))
	// A machine keeps one core busy. Those with the most to do come first.
	slots := make(chan struct{}, runtime.NumCPU())
	var wg sync.WaitGroup
	for _, i := range longestFirst(o.targets) {
		t, r := o.targets[i], &run{Kernel: o.targets[i].name}
		runs[i] = r
		some, settings := t.tests(tests, o.tests)
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			var err error
			if !t.booted() {
				err = o.runHost(ctx, some, settings, r)
			} else {
				err = o.runKernel(ctx, tmp, t, kernels[t.series], some, settings, r)
			}
			// What one kernel is in the way of doesn't concern the others.
			if err != nil {
				r.Problems = append(r.Problems, err.Error())
			}
		})
	}
	wg.Wait()
	return runs, nil
}

// prepareMachines gets and builds what it takes to boot kernels.
func (o *options) prepareMachines(ctx context.Context, tmp string) (map[string]kernel, error) {
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
	if err := buildInit(ctx, filepath.Join(tmp, "init")); err != nil {
		return nil, err
	}
	if o.built, err = buildPrograms(ctx, tmp); err != nil {
		return nil, err
	}
	o.kmods = make(map[string]module)
	for _, t := range o.targets {
		if _, built := o.kmods[t.series]; built || !t.kmod {
			continue
		}
		if o.kmods[t.series], err = o.buildModule(ctx, kernels[t.series]); err != nil {
			return nil, err
		}
	}
	return kernels, nil
}

// runKernel runs the tests on a kernel that it boots and notes in r how they went.
func (o *options) runKernel(ctx context.Context, tmp string, on target, k kernel, tests []testBinary, s testSettings, r *run) error {
	r.Release = k.release
	if len(tests) == 0 {
		return errors.New("none of the packages has tests for it")
	}
	progress("%s: boot %s", on.name, k.release)
	modules, err := loadModules(ctx, k.modules, wantedModules)
	if err != nil {
		return err
	}
	if on.kmod {
		modules = append(modules, o.kmods[k.series])
	}
	m := machine{
		kernel:    k,
		initramfs: filepath.Join(tmp, on.name+".cpio"),
		append:    strings.TrimSpace(on.append + " " + o.append),
		// Kept for who wants to know what the kernel has to say.
		console: filepath.Join(o.cache, "console-"+on.name+".log"),
		live:    o.live,
	}
	if err := writeInitramfs(ctx, m.initramfs, filepath.Join(tmp, "init"), o.built, modules, tests, s); err != nil {
		return err
	}
	defer os.Remove(m.initramfs)

	limited, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	start := time.Now()
	t, took, err := m.boot(limited)
	r.BootSeconds, r.CPUSeconds, r.Seconds = took.boot.Seconds(), took.cpu.Seconds(), time.Since(start).Seconds()
	progress("%s: done in %.0f s", on.name, r.Seconds)
	if err != nil {
		r.Problems = append(r.Problems, err.Error())
	}
	if t == nil {
		return nil
	}
	r.Problems = append(r.Problems, t.errors...)
	log, err := os.ReadFile(m.console)
	if err != nil {
		return err
	}
	if found := complaints(string(log)); len(found) != 0 {
		r.Problems = append(r.Problems, strings.Join(found, "\n")+"\n(see "+m.console+")")
	}
	return r.collect(ctx, tests, t.sections)
}

// getKernels returns the kernels to boot by series, which are downloaded unless
// they're in the cache.
func (o *options) getKernels(ctx context.Context) (map[string]kernel, error) {
	dir := filepath.Join(o.cache, "kernels")
	var a *apt
	kernels := make(map[string]kernel)
	for _, t := range o.targets {
		if _, ok := kernels[t.series]; ok || !t.booted() {
			continue
		}
		if k, ok := cachedKernel(dir, t.series); ok && !o.update {
			kernels[t.series] = k
			continue
		}
		if a == nil {
			progress("fetch package lists")
			var err error
			if a, err = openApt(ctx, filepath.Join(o.cache, "apt")); err != nil {
				return nil, err
			}
		}
		progress("%s: fetch", t.series)
		k, err := fetchKernel(ctx, a, dir, t.series)
		if err != nil {
			return nil, err
		}
		kernels[t.series] = k
	}
	return kernels, nil
}

func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "vm: "+format+"\n", args...)
}

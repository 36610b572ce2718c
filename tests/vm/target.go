// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// defaultTargets are what there is a column for in the table: the kernels of
// Debian 12, Debian 13 and its backports, what the command runs on, and machines
// that refuse something or have the kernel module.
const defaultTargets = "6.1,6.12,7.3,host,6.12+native,7.3+native,6.12+kmod,7.3+kmod,6.12+lockdown,6.12+cgroup1"

// hostSeries is the series of the target that is not booted.
const hostSeries = "host"

// target is what tests run on.
type target struct {
	// name is what the user calls it, like 6.12+lockdown.
	name string
	// series is the kernel, by the start of its version, or hostSeries.
	series string
	variant
}

func (t target) booted() bool { return t.series != hostSeries }

// variant is a machine that differs from others with the same kernel.
type variant struct {
	// append is added to the kernel's command line.
	append string
	// tests are those that are about it, by the packages' short names and the
	// tests' own as one would put it for go test -run; all if they are nil.
	packages *regexp.Regexp
	run      string
	// skip are those among them that are the same as without the variant.
	skip string
	// kmod has the module of bpf/kmod built and loaded.
	kmod bool
}

var variants = map[string]variant{
	"lockdown": {
		append:   "lockdown=confidentiality",
		packages: regexp.MustCompile(`^tests$`),
		run:      "^TestLockdown",
	},
	"cgroup1": {
		append:   cgroup1Env + "=1",
		packages: regexp.MustCompile(`^tests$`),
		run:      "^TestCgroup1",
	},
	// Other packages have nothing to do with it. While the kernel moves a page, as it
	// does to make huge ones, recvmsg cannot write a record there, and says so
	// (MSG_CTRUNC). Most tests want every record.
	"native": {
		append:   "transparent_hugepage=never",
		packages: regexp.MustCompile(`^(conn|sockmeta|tests|examples/.*)$`),
		skip:     "^Test(TCP|TruthTCP|LetIn[^N]|Fault|Coexist|Inherit|LaunchTime|AttachedFQ|DetachedFQ|Transmit|TruthTransmit)",
		kmod:     true,
	},
	// With all that the kernel's allocator can check at run time, which makes the
	// machine several times as slow.
	"kmod": {
		append:   "slub_debug=FZPU",
		packages: regexp.MustCompile(`^tests$`),
		run:      "^TestNative",
		kmod:     true,
	},
}

// parseTargets reads the names of targets, which commas separate.
func parseTargets(names string) ([]target, error) {
	var targets []target
	for name := range strings.SplitSeq(names, ",") {
		t := target{name: name}
		var variant string
		var varied bool
		t.series, variant, varied = strings.Cut(name, "+")
		if varied {
			var ok bool
			if t.variant, ok = variants[variant]; !ok || t.series == hostSeries {
				return nil, fmt.Errorf("no kernel %q: variants of kernels to boot are %s", name,
					strings.Join(slices.Sorted(maps.Keys(variants)), ", "))
			}
		}
		if t.series == "" || slices.ContainsFunc(targets, func(other target) bool { return other.name == name }) {
			return nil, fmt.Errorf("kernel %q: empty or there twice", name)
		}
		targets = append(targets, t)
	}
	return targets, nil
}

// longestFirst returns the indices of targets with those first that presumably
// take longest: newer kernels have more that can be tested, variants less, and the
// host is no emulation.
func longestFirst(targets []target) []int {
	rank := func(i int) int {
		switch t := targets[i]; {
		case t.series == hostSeries:
			return 2
		case t.run != "":
			return 1
		}
		return 0
	}
	order := make([]int, len(targets))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), compareReleases(targets[b].series, targets[a].series))
	})
	return order
}

// tests returns those of the test binaries that are run on a target, and which of
// their tests.
func (t target) tests(all []testBinary, s testSettings) ([]testBinary, testSettings) {
	if t.packages == nil {
		return all, s
	}
	if s.run == "" {
		s.run, s.skip = t.run, t.skip
	}
	var some []testBinary
	for _, b := range all {
		if t.packages.MatchString(shortName(b.pkg)) {
			some = append(some, b)
		}
	}
	return some, s
}

// SPDX-License-Identifier: Apache-2.0

package main

import "regexp"

// justifiedSkips are the tests that can't be run on some kernels. To be skipped
// elsewhere is a failure, as a test that is always skipped tests nothing.
var justifiedSkips = []struct {
	kernel, test *regexp.Regexp
	why          string
}{
	{
		regexp.MustCompile(`^6\.1$`),
		regexp.MustCompile(`^(examples/\S+ TestDemo|tests Test(Area|Decapsulated|ForeignClient|Header|Integrity|UDP|TCP))`),
		"the producer's bytes can't be had before bpf_cast_to_kern_ctx, Linux 6.2",
	},
	{
		regexp.MustCompile(`^6\.1$`),
		regexp.MustCompile(`^tests Test(TCP|[GS]etsockoptSizes)`),
		"what was read of a TCP connection can't be told before bpf_rdonly_cast, Linux 6.2",
	},
}

// justified returns why a test is skipped on a kernel, if there's a reason to.
func justified(series, pkg, test string) (why string, ok bool) {
	for _, s := range justifiedSkips {
		if s.kernel.MatchString(series) && s.test.MatchString(shortName(pkg)+" "+test) {
			return s.why, true
		}
	}
	return "", false
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"regexp"
	"slices"
)

// justifiedSkips are the tests that can't be run on some kernels. To be skipped
// elsewhere is a failure, as a test that is always skipped tests nothing, and so is
// an entry that nothing needs. The host's kernel is "host", its series and each of
// its limits.
var justifiedSkips = []struct {
	kernel, test *regexp.Regexp
	why          string
}{
	{
		regexp.MustCompile(`^([\d.]+|host|.*\+(cgroup1|native))$`),
		regexp.MustCompile(`^tests TestLockdown`),
		"the kernel is to be booted with lockdown=confidentiality",
	},
	{
		regexp.MustCompile(`^([\d.]+|host|.*\+(lockdown|native))$`),
		regexp.MustCompile(`^tests TestCgroup1`),
		"the machine is to have cgroups of version 1 alone",
	},
	{
		regexp.MustCompile(`^([\d.]+|host|.*\+(lockdown|cgroup1))$`),
		regexp.MustCompile(`^tests TestNative`),
		"the kernel module is not loaded",
	},
	{
		regexp.MustCompile(`\+native$`),
		regexp.MustCompile(`^tests TestNative`),
		"the process that runs all tests attaches too often for all of it: +kmod is for these",
	},
	{
		regexp.MustCompile(`\+native$`),
		regexp.MustCompile(`^tests Test(Grant|UDPAllocsOverrun|UDPMessageOfNothing|TracingSupport|TruthSlots(ShortRings|Overlap)|TruthForgedBefore|TruthErrorQueue)$`),
		"they are about the handle tier",
	},
	{
		regexp.MustCompile(`^[\d.]+$`),
		regexp.MustCompile(`^tests/bench TestCases/tcp-accept$`),
		"the machine has no go command, to build what it is compared with",
	},
	{
		regexp.MustCompile(`^[\d.]+$`),
		regexp.MustCompile(`^bpf/include TestGuide`),
		"the machine has no sources and no compilers",
	},
	{
		regexp.MustCompile(`^[\d.]+(\+native)?$`),
		regexp.MustCompile(`^tests TestCEnable$`),
		"the machine has no compiler",
	},
	{
		regexp.MustCompile(`^[\d.]+$`),
		regexp.MustCompile(`^internal/btforder `),
		"the machine has no sources, and so no objects of theirs",
	},
	{
		regexp.MustCompile(`^6\.1$`),
		regexp.MustCompile(`^tests Test(LargeAreas|HeaderPut|HeaderPutUntilFull|TruthAnchorUnproven|TruthAnchorRouted)$`),
		"the kernel allows areas of 32 bytes",
	},
	{
		regexp.MustCompile(`^6\.1$`),
		regexp.MustCompile(`^tests TestUDPControlMessages/udp\w+/TIMESTAMPING.*_filter_`),
		"the kernel has no SOF_TIMESTAMPING_OPT_RX_FILTER before Linux 6.12",
	},
	{
		regexp.MustCompile(`^6\.1$`),
		regexp.MustCompile(`^tests TestUDPOptInFails$`),
		"net.core.optmem_max is one for all network namespaces before Linux 6.8",
	},
	{
		regexp.MustCompile(`^` + noTrampolines + `$`),
		regexp.MustCompile(`^tests Test(Tracing|TruthForgerSockets/tracing_true$)`),
		"this machine allows no BPF trampolines",
	},
	{
		regexp.MustCompile(`^` + noFQ + `$`),
		regexp.MustCompile(`^tests Test(Attached|Detached|LaunchTime)FQ`),
		"this machine has no queueing discipline fq",
	},
	{
		regexp.MustCompile(`^` + noVLAN + `$`),
		regexp.MustCompile(`^tests TestTruthForgerWire/.*/(VLAN|QinQ)$`),
		"this machine has no VLANs",
	},
	{
		regexp.MustCompile(`^` + noTunnels + `$`),
		regexp.MustCompile(`^tests Test(TruthForgerWire/.*/(Geneve|GRE|IPIP|6in4|4in6|6in6|FOU|GUE|SRv6)|TruthAnchorTunnels/(Geneve|GRE|IP_in_IP))`),
		"this machine has no such tunnels",
	},
	{
		regexp.MustCompile(`^` + noVLAN + `$`),
		regexp.MustCompile(`^internal/netlab TestAddVLAN$`),
		"this machine has no VLANs",
	},
	{
		regexp.MustCompile(`^` + noDummy + `$`),
		regexp.MustCompile(`^internal/netlab TestAddDummy$`),
		"this machine has no dummy interfaces",
	},
	{
		regexp.MustCompile(`^6\.1$`),
		regexp.MustCompile(`^tests Test(Local(UDP|Producer|TCP|Integrity|Elsewhere|Strangers|Fragments|Close|Segments|FaultAttach|Trains)|TruthLocal(Merged|Replayed|Once|Lapped)|Forged(LocalNumbers|Elsewhere))(/|$)`),
		"delivery times of UDP do not cross devices before Linux 6.11, as AttachLocal says",
	},
}

// justification returns the index in justifiedSkips of why a test is skipped where
// one of the conditions is, or -1.
func justification(conditions []string, pkg, test string) int {
	for i, s := range justifiedSkips {
		if slices.ContainsFunc(conditions, s.kernel.MatchString) && s.test.MatchString(shortName(pkg)+" "+test) {
			return i
		}
	}
	return -1
}

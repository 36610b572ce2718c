// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"testing"
)

func TestParseTargets(t *testing.T) {
	targets, err := parseTargets(defaultTargets)
	if err != nil {
		t.Fatal(err)
	}
	if len(targets) != 10 || targets[8].series != "6.12" || targets[8].append != "lockdown=confidentiality" || targets[2].append != "" ||
		!targets[4].kmod || targets[8].kmod {
		t.Errorf("got %+v", targets)
	}
	for _, names := range []string{"", "6.1,", "6.1,6.12,6.1", "6.1+nothing", "host+lockdown", "6.1+", "+lockdown"} {
		if targets, err := parseTargets(names); err == nil {
			t.Errorf("%q: no error but %+v", names, targets)
		}
	}
}

func TestTargetTests(t *testing.T) {
	all := []testBinary{
		{pkg: "github.com/sockmeta/sockmeta-go/bpf"},
		{pkg: "github.com/sockmeta/sockmeta-go/tests"},
		{pkg: "github.com/sockmeta/sockmeta-go/tests/soak"},
		{pkg: "github.com/sockmeta/sockmeta-go/examples/udpecho"},
	}
	for _, tt := range []struct {
		target, run string
		wantTests   int
		wantRun     string
		wantSkip    bool
	}{
		{"6.12", "", 4, "", false},
		{"6.12", "TestUDP", 4, "TestUDP", false},
		{"6.12+lockdown", "", 1, "^TestLockdown", false},
		{"6.12+lockdown", "TestUDP", 1, "TestUDP", false},
		{"7.3+native", "", 2, "", true},
		{"7.3+native", "TestTCP", 2, "TestTCP", false},
		{"7.3+kmod", "", 1, "^TestNative", false},
	} {
		targets, err := parseTargets(tt.target)
		if err != nil {
			t.Fatal(err)
		}
		tests, s := targets[0].tests(all, testSettings{run: tt.run})
		if len(tests) != tt.wantTests || s.run != tt.wantRun || s.skip != "" != tt.wantSkip {
			t.Errorf("%s with %q: %d packages, %q without %q", tt.target, tt.run, len(tests), s.run, s.skip)
		}
	}
}

func TestLongestFirst(t *testing.T) {
	targets, err := parseTargets(defaultTargets)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, i := range longestFirst(targets) {
		got = append(got, targets[i].name)
	}
	want := []string{"7.3", "7.3+native", "6.12", "6.12+native", "6.1", "7.3+kmod", "6.12+kmod", "6.12+lockdown", "6.12+cgroup1", "host"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

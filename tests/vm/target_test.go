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
	if len(targets) != 8 || targets[6].series != "6.12" || targets[6].append != "lockdown=confidentiality" || targets[2].append != "" ||
		!targets[4].kmod || targets[6].kmod {
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
	}
	for _, tt := range []struct {
		target, run string
		wantTests   int
		wantRun     string
	}{
		{"6.12", "", 3, ""},
		{"6.12", "TestUDP", 3, "TestUDP"},
		{"6.12+lockdown", "", 1, "^TestLockdown"},
		{"6.12+lockdown", "TestUDP", 1, "TestUDP"},
		{"7.3+native", "", 3, ""},
		{"7.3+kmod", "", 1, "^TestNative"},
	} {
		targets, err := parseTargets(tt.target)
		if err != nil {
			t.Fatal(err)
		}
		tests, s := targets[0].tests(all, testSettings{run: tt.run})
		if len(tests) != tt.wantTests || s.run != tt.wantRun {
			t.Errorf("%s with %q: %d packages, %q", tt.target, tt.run, len(tests), s.run)
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
	want := []string{"7.3", "6.12", "6.1", "7.3+kmod", "6.12+kmod", "6.12+lockdown", "6.12+cgroup1", "host"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

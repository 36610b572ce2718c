// SPDX-License-Identifier: Apache-2.0

package netlab

import "testing"

func TestCgroupNames(t *testing.T) {
	p := process{pid: 4711, start: 98765}
	for _, name := range []string{"udpecho", "with-dashes-1-2", "dotted.name"} {
		if got, ok := parseCgroupName(cgroupName(name, p, 3)); !ok || got != p {
			t.Errorf("%s: got %v, %v", name, got, ok)
		}
	}
	for _, name := range []string{
		"", "sockmeta", "sockmeta-", "sockmeta-a", "sockmeta-1-2.3", "sockmeta-a-1-2", "sockmeta-a-x-2.3",
		"sockmeta-a-1-x.3", "sockmeta-a-1-2.x", "sockmeta-a-99999999999-2.3", "user.slice-a-1-2.3",
	} {
		if p, ok := parseCgroupName(name); ok {
			t.Errorf("%q was taken for a cgroup of %v", name, p)
		}
	}
}

func TestParseStartTime(t *testing.T) {
	const stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 99 100\n"
	if got, err := parseStartTime(stat); err != nil || got != 4242 {
		t.Errorf("got %d, %v", got, err)
	}
	for _, s := range []string{"", "7 (a) S 1", "no parentheses"} {
		if _, err := parseStartTime(s); err == nil {
			t.Errorf("%q: no error", s)
		}
	}
}

func TestAlive(t *testing.T) {
	me, err := thisProcess()
	if err != nil {
		t.Fatal(err)
	}
	if !me.alive() {
		t.Error("this process isn't alive")
	}
	if (process{me.pid, me.start + 1}).alive() {
		t.Error("a reused pid passes for its former process")
	}
}

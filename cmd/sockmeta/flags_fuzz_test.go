// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/sockmeta/sockmeta-go/internal/abi"
)

// FuzzFlags gives attach any arguments, one a line: what it takes means the same
// when it is written plainly, and nothing of the kernel's own is a key.
func FuzzFlags(f *testing.F) {
	for _, args := range []string{
		"", "-service=53=7\n-producer=eth0", "-service\n53=0x7", "-service=65536=1", "-service=53", "-service==",
		"-mark-mask=0xff00\n-max-priority=010", "-mark-mask=-1", "-local-key=trace_id\n-local=lo", "-local-key=255",
		"-local-key=0x10\n-local-key=6", "-slots=64\n-tracing", "-cgroup=/x\nrest", "-no-launch-times=maybe", "-pin=/x",
	} {
		f.Add(args)
	}
	// The flag package prints its usage.
	stderr := os.Stderr
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { os.Stderr = stderr; _ = null.Close() })
	f.Fuzz(func(t *testing.T, text string) {
		os.Stderr = null
		o, err := parseAttach(strings.Split(text, "\n"))
		os.Stderr = stderr
		if err != nil {
			return
		}
		plain := []string{
			"-cgroup=" + o.Cgroup, fmt.Sprintf("-slots=%d", o.SlotsPerCPU), fmt.Sprintf("-tracing=%v", o.Tracing), "-pin=" + o.pin,
			fmt.Sprintf("-mark-mask=%d", o.Policy.MarkMask), fmt.Sprintf("-max-priority=%d", o.Policy.MaxPriority),
			fmt.Sprintf("-no-launch-times=%v", !o.Policy.LaunchTimes), "-producer=" + o.producer,
		}
		if o.join {
			plain = []string{"-cgroup=" + o.Cgroup, "-join", "-pin=" + o.pin, "-producer=" + o.producer}
		}
		for port, id := range o.services {
			plain = append(plain, fmt.Sprintf("-service=%d=%d", port, id))
		}
		for _, k := range o.Policy.LocalKeys {
			if k == abi.KeyPad || k == abi.KeyAnchor || k == abi.KeySender {
				t.Errorf("%q: key %d", text, k)
			}
			plain = append(plain, fmt.Sprintf("-local-key=%d", k))
		}
		for _, name := range o.locals {
			plain = append(plain, "-local="+name)
		}
		again, err := parseAttach(plain)
		if err != nil {
			t.Fatalf("%q, written plainly %q: %v", text, plain, err)
		}
		if !maps.Equal(again.services, o.services) || !slices.Equal(again.locals, o.locals) || !slices.Equal(again.Policy.LocalKeys, o.Policy.LocalKeys) ||
			again.Policy.MarkMask != o.Policy.MarkMask || again.Policy.MaxPriority != o.Policy.MaxPriority || again.Policy.LaunchTimes != o.Policy.LaunchTimes || again.join != o.join || again.producer != o.producer || again.pin != o.pin {
			t.Errorf("%q is %+v, written plainly %+v", text, o, again)
		}
	})
}

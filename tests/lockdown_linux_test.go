// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

func init() {
	children["lockdownSockets"] = func() error { return plainSockets("lockdown=confidentiality", 0) }
}

const lockdownFile = "/sys/kernel/security/lockdown"

// requireLockdown skips the test unless the kernel was booted with
// lockdown=confidentiality.
func requireLockdown(t *testing.T) {
	t.Helper()
	testutil.RequireRoot(t)
	b, err := os.ReadFile(lockdownFile)
	if err != nil {
		t.Skip(err)
	}
	if !strings.Contains(string(b), "[confidentiality]") {
		t.Skipf("needs a kernel that was booted with lockdown=confidentiality, this one has %s", strings.TrimSpace(string(b)))
	}
}

// TestLockdownAttach attaches where programs may not read the kernel's memory.
func TestLockdownAttach(t *testing.T) {
	requireLockdown(t)
	testutil.Leaks(t)
	cg := testutil.EnterCgroup(t)
	for name, mounts := range map[string]func() error{
		"securityfs": nil,
		// The kernel does not say so then: it has to be found out.
		"no securityfs": func() error { return unmountAll("securityfs") },
	} {
		t.Run(name, func(t *testing.T) {
			out, err := testutil.RunChild(t, "lockdownSockets", testutil.ChildOptions{
				Netns: testutil.Namespace(t), Mounts: mounts,
			})
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	if n := countPrograms(t, cg.Path(), 0); n != [5]int{} {
		t.Errorf("%v programs are left in the cgroup", n)
	}
	_, err := bpf.Attach(bpf.Options{Tracing: true})
	if !errors.Is(err, sockmeta.ErrNotSupported) || !strings.Contains(err.Error(), "lockdown=confidentiality") {
		t.Errorf("tracing: %v", err)
	}
}

// TestLockdownProducer attaches the producer, which reads nothing but packets.
func TestLockdownProducer(t *testing.T) {
	requireLockdown(t)
	testutil.Leaks(t)
	p := testutil.Pair(t)
	must(t, p.Server.Do(func() error {
		producer, err := bpf.AttachProducer(p.ServerIf, bpf.ProducerOptions{})
		if err != nil {
			return err
		}
		return producer.Close()
	}))
}

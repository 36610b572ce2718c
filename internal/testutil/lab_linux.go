// SPDX-License-Identifier: Apache-2.0

package testutil

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/internal/cgroup2"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
)

// Namespace returns a network namespace that lasts as long as the test.
func Namespace(t testing.TB) *netlab.Namespace {
	t.Helper()
	RequireRoot(t, unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN)
	ns, err := netlab.New()
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, ns.Close)
	return ns
}

// Pair returns a pair of connected hosts that lasts as long as the test.
func Pair(t testing.TB) *netlab.Pair {
	t.Helper()
	RequireRoot(t, unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN)
	p, err := netlab.NewPair()
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, p.Close)
	return p
}

// Cgroup returns an empty cgroup that lasts as long as the test. The test is
// skipped where there's no cgroup2 hierarchy.
func Cgroup(t testing.TB) *netlab.Cgroup {
	t.Helper()
	RequireRoot(t, unix.CAP_SYS_ADMIN)
	cg, err := netlab.NewCgroup(strings.ReplaceAll(t.Name(), "/", "_"))
	if errors.Is(err, cgroup2.ErrNoCgroup2) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, cg.Close)
	return cg
}

// EnterCgroup is Cgroup with the test process inside until the test ends. As
// this affects the whole process it's not for parallel tests.
func EnterCgroup(t testing.TB) *netlab.Cgroup {
	t.Helper()
	cg := Cgroup(t)
	leave, err := cg.Enter()
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, leave)
	return cg
}

// ShieldCgroup is EnterCgroup for tests that need no privileges: where the
// process has them, its sockets attach programs, and those are not to reach
// other tests.
func ShieldCgroup(t testing.TB) {
	t.Helper()
	if caps, err := effectiveCaps(); err == nil && caps&(1<<unix.CAP_SYS_ADMIN) != 0 {
		EnterCgroup(t)
	}
}

func closeAtEnd(t testing.TB, f func() error) {
	t.Cleanup(func() {
		if err := f(); err != nil {
			t.Error(err)
		}
	})
}

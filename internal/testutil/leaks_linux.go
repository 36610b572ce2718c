// SPDX-License-Identifier: Apache-2.0

package testutil

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sockmeta/sockmeta-go/internal/netlab"
)

// leakTimeout bounds the wait for goroutines that are about to end.
const leakTimeout = 2 * time.Second

// Leaks fails the test if network namespaces, cgroups or goroutines that it
// made remain at its end. It is to be called first, so that it looks after
// everything else has been cleaned up, and not in parallel tests.
func Leaks(t testing.TB) {
	t.Helper()
	before := takeCensus(t)
	t.Cleanup(func() {
		if t.Skipped() {
			return
		}
		deadline := time.Now().Add(leakTimeout)
		for {
			leak := before.leaked(takeCensus(t))
			if leak == "" {
				return
			}
			if time.Now().After(deadline) {
				t.Error(leak)
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
}

// census counts what a test may leave behind.
type census struct {
	netns      int
	cgroups    []string
	goroutines int
}

func takeCensus(t testing.TB) census {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var c census
	for _, fd := range fds {
		// The descriptor of the directory itself is gone by now.
		link, err := os.Readlink(filepath.Join("/proc/self/fd", fd.Name()))
		if err == nil && strings.HasPrefix(link, "net:[") {
			c.netns++
		}
	}
	if c.cgroups, err = netlab.OwnCgroups(); err != nil {
		t.Fatal(err)
	}
	c.goroutines = runtime.NumGoroutine()
	return c
}

// leaked says what there's more of in after, or nothing.
func (c census) leaked(after census) string {
	switch {
	case after.netns > c.netns:
		return fmt.Sprintf("%d network namespaces left open", after.netns-c.netns)
	case len(after.cgroups) > len(c.cgroups):
		return fmt.Sprintf("%d cgroups left among %s", len(after.cgroups)-len(c.cgroups), strings.Join(after.cgroups, ", "))
	case after.goroutines > c.goroutines:
		stacks := make([]byte, 64<<10)
		stacks = stacks[:runtime.Stack(stacks, true)]
		return fmt.Sprintf("%d goroutines left among\n%s", after.goroutines-c.goroutines, stacks)
	}
	return ""
}

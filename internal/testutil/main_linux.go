// SPDX-License-Identifier: Apache-2.0

package testutil

import (
	"fmt"
	"os"
	"testing"

	"github.com/sockmeta/sockmeta-go/internal/kerneltypes"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
)

// MainInCgroup is to be called by TestMain. It runs the tests in a cgroup of
// their own, so that what their sockets attach as root does not reach the tests
// of other packages, which run at the same time.
func MainInCgroup(m *testing.M, name string) {
	os.Exit(runInCgroup(m, name))
}

func runInCgroup(m *testing.M, name string) int {
	kerneltypes.Keep()
	cg, err := netlab.NewCgroup(name)
	if err != nil {
		// Without privileges nothing is attached either.
		return m.Run()
	}
	defer cg.Close()
	if _, err := cg.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

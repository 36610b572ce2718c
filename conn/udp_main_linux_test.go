// SPDX-License-Identifier: Apache-2.0

package conn_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/sockmeta/sockmeta-go/internal/netlab"
)

// TestMain has the sockets of the tests in a cgroup of their own, so that what
// they attach as root does not reach the tests of other packages, which run at
// the same time.
func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	cg, err := netlab.NewCgroup("conn")
	if err != nil {
		// Without privileges nothing is attached either.
		return m.Run()
	}
	defer cg.Close()
	if _, err := cg.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return m.Run()
}

// SPDX-License-Identifier: Apache-2.0

package clients

import (
	"fmt"
	"os"
	"testing"

	"github.com/sockmeta/sockmeta-go/internal/kerneltypes"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
)

// plainCgroup is beside the one that the tests are in: what their sockets attach is not
// there. It is nil where the process may make none.
var plainCgroup *netlab.Cgroup

func TestMain(m *testing.M) { os.Exit(run(m)) }

// run is testutil.MainInCgroup with a second cgroup.
func run(m *testing.M) int {
	kerneltypes.Keep()
	plain, err := netlab.NewCgroup("plain")
	if err != nil {
		// Without privileges nothing is attached either.
		return m.Run()
	}
	defer plain.Close()
	plainCgroup = plain
	own, err := netlab.NewCgroup("clients")
	if err == nil {
		defer own.Close()
		_, err = own.Enter()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

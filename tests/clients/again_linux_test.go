// SPDX-License-Identifier: Apache-2.0

package clients

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// againEnv says to a process that runs tests for another whether its sockets have
// metadata: attached or plain.
const againEnv = "SOCKMETA_CLIENTS_AGAIN"

const nobody = 65534

// again runs tests of this program in processes of their own: one that attaches the
// programs, and one that may not, in a cgroup that nobody attached to. run is for
// -test.run, and want are the tests that have to be among those that passed.
func again(t *testing.T, run string, want []string) {
	testutil.RequireRoot(t)
	for _, how := range []string{"attached", "plain"} {
		t.Run(how, func(t *testing.T) {
			exe, err := os.Open("/proc/self/exe")
			must(t, err)
			defer exe.Close()
			cmd := exec.CommandContext(t.Context(), "/proc/self/fd/3", "-test.run="+run, "-test.v",
				fmt.Sprintf("-test.short=%v", testing.Short()))
			cmd.ExtraFiles = []*os.File{exe}
			cmd.Env = append(os.Environ(), againEnv+"="+how)
			cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
			if how == "plain" {
				cmd.Dir = "/"
				cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
				// For receive buffers of any size; it does not do to attach.
				cmd.SysProcAttr.AmbientCaps = []uintptr{unix.CAP_NET_ADMIN}
				if plainCgroup == nil {
					testutil.Skip(t, "needs cgroup v2")
				}
				dir, err := os.Open(plainCgroup.Path())
				must(t, err)
				defer dir.Close()
				cmd.SysProcAttr.UseCgroupFD = true
				cmd.SysProcAttr.CgroupFD = int(dir.Fd())
			}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			for _, name := range want {
				if !strings.Contains(string(out), "--- PASS: "+name+" ") {
					t.Errorf("%s is not among the tests that passed", name)
				}
			}
		})
	}
}

// inAgain skips a test that is not run by again, and holds it to the kind of sockets
// that it was started for.
func inAgain(t *testing.T) {
	t.Helper()
	how := os.Getenv(againEnv)
	if how == "" {
		t.Skip("runs in a process of its own")
	}
	c, err := sockmeta.ListenPacket("udp", "127.0.0.1:0")
	must(t, err)
	defer c.Close()
	if err := c.(*sockmeta.UDPConn).Support().Err(); (err == nil) != (how == "attached") {
		t.Fatalf("%s sockets, but: %v", how, err)
	}
}

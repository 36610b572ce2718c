// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// kmodEnv is where a machine that has the kernel module of bpf/kmod loaded says where
// it lies.
const kmodEnv = "SOCKMETA_KMOD"

// native says that attachments have the native tier on this machine.
func native() bool { return os.Getenv(kmodEnv) != "" }

// handleTier skips what is about handles and their slots, which the native tier does
// without.
func handleTier(t testing.TB) {
	t.Helper()
	if native() {
		t.Skip("the native tier is attached")
	}
}

// carryHandles has a socket of the native tier be one of the handle tier from now on,
// for tests that read it behind its connection's back.
func carryHandles(fd int) error {
	if !native() {
		return nil
	}
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPING, unix.SOF_TIMESTAMPING_SOFTWARE)
	if err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	return bpf.EnableSocket(fd, 0)
}

// checkSupport says what is wrong with a UDP connection that can be read by the
// handle, mapped or not, or, on machines with the native tier, by control messages.
func checkSupport(c interface{ Support() sockmeta.Support }, mapped bool) error {
	s := c.Support()
	if native() && s.Tier == sockmeta.TierNative && !s.Mapped && s.Unmapped == nil && len(s.Missing) == 0 {
		return nil
	}
	if native() || s.Tier != sockmeta.TierHandle || s.Mapped != mapped {
		return fmt.Errorf("support is %v, %v", s, s.Unmapped)
	}
	return nil
}

// checkUnprivileged is checkSupport where a process attached that has no
// CAP_SYS_ADMIN, which the native tier needs.
func checkUnprivileged(c *sockmeta.UDPConn) error {
	if !native() {
		return checkSupport(c, true)
	}
	s := c.Support()
	if s.Tier == sockmeta.TierHandle && s.Mapped {
		for _, m := range s.Missing {
			if m.Tier == sockmeta.TierNative && strings.Contains(m.Err.Error(), "CAP_SYS_ADMIN") {
				return nil
			}
		}
	}
	return fmt.Errorf("support is %v, missing %v", s, s.Missing)
}

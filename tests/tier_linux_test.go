// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// kmodEnv is where a machine that has the kernel module of bpf/kmod loaded says where
// it lies.
const kmodEnv = "SOCKMETA_KMOD"

// native says that attachments have the native tier on this machine.
func native() bool { return os.Getenv(kmodEnv) != "" }

// carryHandles has a socket of the native tier get handles as control messages, too,
// as it does where the application asks for times.
func carryHandles(fd int) error {
	if !native() {
		return nil
	}
	return os.NewSyscallError("setsockopt",
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPING, unix.SOF_TIMESTAMPING_SOFTWARE))
}

// checkSupport says what is wrong with a UDP connection that can be read by the
// handle, mapped or not, or, on machines with the native tier, by control messages.
func checkSupport(c interface{ Support() sockmeta.Support }, mapped bool) error {
	s := c.Support()
	if native() && s.Tier == sockmeta.TierNative && !s.Mapped && s.Unmapped == nil && len(s.Missing) == 0 {
		return nil
	}
	if native() || s.Tier != sockmeta.TierHandle || s.Mapped != mapped {
		return fmt.Errorf("support is %v, %w", s, s.Unmapped)
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// CAP_BPF and CAP_PERFMON are contained in CAP_SYS_ADMIN.
var needed = []struct {
	bit  uint
	name string
}{
	{unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN (network namespaces)"},
	{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN (links, XDP)"},
}

// checkCapabilities says what is missing before anything is set up.
func checkCapabilities() error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	var missing []string
	for _, c := range needed {
		if data[c.bit/32].Effective&(1<<(c.bit%32)) == 0 {
			missing = append(missing, c.name)
		}
	}
	if missing != nil {
		return fmt.Errorf("-demo needs root: missing %s", strings.Join(missing, ", "))
	}
	return nil
}

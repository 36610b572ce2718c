// SPDX-License-Identifier: Apache-2.0

package testutil

import (
	"os"
	"strings"
	"syscall"
	"testing"
)

// RequireContainers skips a test where the kernel makes no user namespaces.
func RequireContainers(t testing.TB) {
	t.Helper()
	b, err := os.ReadFile("/proc/sys/user/max_user_namespaces")
	if err != nil {
		t.Skipf("no user namespaces: %v", err)
	}
	if strings.TrimSpace(string(b)) == "0" {
		t.Skip("no user namespaces: user.max_user_namespaces is 0")
	}
}

// contain makes the process root of namespaces of its own, and nobody outside.
func contain(attr *syscall.SysProcAttr) {
	attr.Cloneflags |= syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: nobody, Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: nobody, Size: 1}}
	attr.GidMappingsEnableSetgroups = true
	attr.Credential = &syscall.Credential{Uid: 0, Gid: 0}
}

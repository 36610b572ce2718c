// SPDX-License-Identifier: Apache-2.0

package testutil

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// requireRootEnv turns missing privileges from a reason to skip into a failure,
// for runs that are meant to cover everything.
const requireRootEnv = "SOCKMETA_REQUIRE_ROOT"

// RequireRoot skips a test that the process lacks the given capabilities for,
// which are by default those needed to set up a lab and load programs. The
// test fails instead if SOCKMETA_REQUIRE_ROOT=1 is in the environment.
func RequireRoot(t testing.TB, caps ...uintptr) {
	t.Helper()
	if len(caps) == 0 {
		caps = []uintptr{unix.CAP_NET_ADMIN, unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_SYS_ADMIN}
	}
	have, err := effectiveCaps()
	if err != nil {
		t.Fatal(err)
	}
	var missing []string
	for _, c := range caps {
		if have&(1<<c) == 0 {
			missing = append(missing, capName(c))
		}
	}
	if len(missing) == 0 {
		return
	}
	Skip(t, fmt.Sprintf("needs %s; run as root", strings.Join(missing, ", ")))
}

// Skip skips a test for a reason that a run as root on a bare machine does not
// have. The test fails instead if SOCKMETA_REQUIRE_ROOT=1 is in the environment.
func Skip(t testing.TB, why string) {
	t.Helper()
	if os.Getenv(requireRootEnv) == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

func effectiveCaps() (uint64, error) {
	data, err := threadCaps()
	return uint64(data[1].Effective)<<32 | uint64(data[0].Effective), err
}

var capHeader = unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}

func threadCaps() (data [2]unix.CapUserData, err error) {
	hdr := capHeader
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return data, os.NewSyscallError("capget", err)
	}
	return data, nil
}

func capName(c uintptr) string {
	switch c {
	case unix.CAP_BPF:
		return "CAP_BPF"
	case unix.CAP_NET_ADMIN:
		return "CAP_NET_ADMIN"
	case unix.CAP_NET_BIND_SERVICE:
		return "CAP_NET_BIND_SERVICE"
	case unix.CAP_NET_RAW:
		return "CAP_NET_RAW"
	case unix.CAP_PERFMON:
		return "CAP_PERFMON"
	case unix.CAP_SETGID:
		return "CAP_SETGID"
	case unix.CAP_SETPCAP:
		return "CAP_SETPCAP"
	case unix.CAP_SETUID:
		return "CAP_SETUID"
	case unix.CAP_SYS_ADMIN:
		return "CAP_SYS_ADMIN"
	case unix.CAP_SYS_RESOURCE:
		return "CAP_SYS_RESOURCE"
	}
	return fmt.Sprintf("capability %d", c)
}

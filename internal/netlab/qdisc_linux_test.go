// SPDX-License-Identifier: Apache-2.0

package netlab_test

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
)

func TestSetQdisc(t *testing.T) {
	testutil.Leaks(t)
	p := testutil.Pair(t)
	if err := netlab.SetQdisc(p.Client, p.ClientIf, "no-such-kind"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("unknown kind: %v", err)
	}
	if err := netlab.SetQdisc(p.Client, "missing0", "pfifo"); !errors.Is(err, unix.ENODEV) {
		t.Errorf("missing link: %v", err)
	}
	server := listen(t, p.Server, netip.AddrPortFrom(p.ServerAddr4, 0))
	client := listen(t, p.Client, netip.AddrPortFrom(p.ClientAddr4, 0))
	to := server.LocalAddr().(*net.UDPAddr).AddrPort()
	// The first takes the place of none, the second that of the first.
	for _, kind := range []string{"pfifo", "bfifo"} {
		if err := netlab.SetQdisc(p.Client, p.ClientIf, kind); err != nil {
			t.Fatal(err)
		}
		if got, err := netlab.Qdisc(p.Client, p.ClientIf); err != nil || got != kind {
			t.Errorf("queueing discipline is %q, %v, want %q", got, err, kind)
		}
		if _, err := client.WriteToUDPAddrPort([]byte("x"), to); err != nil {
			t.Fatal(err)
		}
		receive(t, server)
	}
}

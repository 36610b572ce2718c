// SPDX-License-Identifier: Apache-2.0

// Package lab is where the examples' tests run: a host of its own, whose packets to one
// port are of a service.
package lab

import (
	"testing"
	"time"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
)

const (
	// Addr is where the examples listen, Port its port.
	Addr = "127.0.0.1:7300"
	Port = 7300
	// Service is the id of the service that packets to the port are for.
	Service = 73
	// Timeout is for what a client waits for.
	Timeout = 20 * time.Second
)

// New returns the host, which has a loopback interface alone. It lasts as long as the test.
// What sockets attach meanwhile is attached to a cgroup of the test's own.
func New(t *testing.T) *netlab.Namespace {
	t.Helper()
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	ns := testutil.Namespace(t)
	testutil.EnterCgroup(t)
	var p *bpf.Producer
	Do(t, ns, func() (err error) {
		p, err = bpf.AttachProducer("lo", bpf.ProducerOptions{Services: map[uint16]uint32{Port: Service}})
		return err
	})
	t.Cleanup(func() { _ = p.Close() })
	return ns
}

// Do runs f on the host, as Namespace.Do, and fails the test if it does.
func Do(t *testing.T, ns *netlab.Namespace, f func() error) {
	t.Helper()
	if err := ns.Do(f); err != nil {
		t.Fatal(err)
	}
}

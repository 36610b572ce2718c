// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"errors"
	"slices"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
)

// Hosts calls f with a client and a server host, with the process in a cgroup of its own
// that the programs are attached to. It leaves nothing behind.
func Hosts(policy bpf.Policy, f func(*netlab.Pair, *bpf.Attachment) error) (err error) {
	if err := checkCapabilities(); err != nil {
		return err
	}
	var cleanup []func() error
	defer func() {
		for _, f := range slices.Backward(cleanup) {
			err = errors.Join(err, f())
		}
	}()
	cg, err := netlab.NewCgroup("sockmeta-demo")
	if err != nil {
		return err
	}
	cleanup = append(cleanup, cg.Close)
	// Before there are sockets: theirs is the cgroup that the programs are
	// attached to.
	leave, err := cg.Enter()
	if err != nil {
		return err
	}
	cleanup = append(cleanup, leave)
	a, err := bpf.Attach(bpf.Options{Cgroup: cg.Path(), Policy: &policy})
	if err != nil {
		return err
	}
	cleanup = append(cleanup, a.Close)
	pair, err := netlab.NewPair()
	if err != nil {
		return err
	}
	cleanup = append(cleanup, pair.Close)
	return f(pair, a)
}

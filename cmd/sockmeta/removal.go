// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// A removal tells when a cgroup is removed. One that is made under the same path later,
// as service managers do when they start a service again, is another, and whatever was
// attached to the first is not attached to it.
type removal struct {
	cgroup string
	root   *os.Root
}

func watchRemoval(cgroup string) (*removal, error) {
	root, err := os.OpenRoot(cgroup)
	if err != nil {
		return nil, err
	}
	return &removal{cgroup, root}, nil
}

// Close ends the watch.
func (r *removal) Close() error { return r.root.Close() }

func (r *removal) check() error {
	// Each cgroup has it as long as it is there.
	_, err := r.root.Stat("cgroup.procs")
	if !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("cgroup %s was removed, and sockets of another one of that name get no metadata: attach again when it is there, or to one above that stays", r.cgroup)
}

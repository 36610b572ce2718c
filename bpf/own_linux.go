// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/sockmeta/sockmeta-go/internal/cgroup2"
)

// own are the attachments that this process's sockets need, by cgroup. They are
// never closed: the kernel does that when the process ends.
var own struct {
	sync.Mutex
	attachments map[string]*Attachment
	// err is what came of the last attempt, for which cgroup and when.
	err    error
	path   string
	failed time.Time
}

// AttachOwn attaches to the cgroup that this process is in now, once in the
// life of the process: it is what sockets do that find nobody to answer them.
// The attachment ends with the process; it must not be closed.
func AttachOwn() (*Attachment, error) {
	own.Lock()
	defer own.Unlock()
	path, err := cgroup2.Self()
	if err != nil {
		return nil, fmt.Errorf("sockmeta: attach: %w: %w: mount a cgroup v2 hierarchy", ErrNotSupported, err)
	}
	if a := own.attachments[path]; a != nil {
		return a, nil
	}
	// A kernel that refused will refuse the next socket, too, and trying
	// takes it tens of milliseconds.
	if own.err != nil && own.path == path && time.Since(own.failed) < 10*time.Second {
		return nil, own.err
	}
	a, err := Attach(Options{})
	own.err = err
	if err != nil {
		own.path, own.failed = path, time.Now()
		return nil, err
	}
	keep(path, a)
	return a, nil
}

func keep(path string, a *Attachment) {
	if own.attachments == nil {
		own.attachments = make(map[string]*Attachment)
	}
	own.attachments[path] = a
}

// joinOwn joins the instance, if it is attached to the cgroup that this process
// is in and this process may.
func joinOwn(instance uint64) *Attachment {
	own.Lock()
	defer own.Unlock()
	path, err := cgroup2.Self()
	if err != nil || own.attachments[path] != nil {
		return nil
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer dir.Close()
	a, err := join(dir)
	if err != nil {
		return nil
	}
	if a.info.Instance != instance {
		_ = a.Close()
		return nil
	}
	register(instance, a.slots)
	keep(path, a)
	return a
}

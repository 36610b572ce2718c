// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// own are the attachments that this process's sockets need, by the number of the
// cgroup: a path may lead to another cgroup later. They stay until the kernel has
// detached them, or there are too many.
var own struct {
	sync.Mutex
	attachments map[uint64]*Attachment
	// err is what came of the last attempt, for which cgroup and when.
	err    error
	cgroup uint64
	failed time.Time
}

// maxOwn is how many are kept: each takes up to 30 file descriptors. A process that is moved
// through more cgroups gives up the one whose sockets it made longest ago.
const maxOwn = 32

// uses counts what Slots.used compares.
var uses atomic.Uint64

// AttachOwn attaches to the cgroup that this process is in now, once in the
// life of the process: it is what sockets do that find nobody to answer them.
// The attachment must not be closed. It ends with the process, or when the cgroup was
// removed and its sockets are closed; or when the process has made sockets in 32 other
// cgroups since.
func AttachOwn() (*Attachment, error) {
	own.Lock()
	defer own.Unlock()
	dir, err := openCgroup("")
	if err != nil {
		return nil, attachError(err)
	}
	defer dir.Close()
	id, err := cgroupID(dir)
	if err != nil {
		return nil, attachError(err)
	}
	dropEnded()
	if a := own.attachments[id]; a != nil {
		return a, nil
	}
	// A kernel that refused will refuse the next socket, too, and trying
	// takes it tens of milliseconds.
	if own.err != nil && own.cgroup == id && time.Since(own.failed) < 10*time.Second {
		return nil, own.err
	}
	own.err = nil
	a, err := attachTo(dir, Options{}, nil)
	if err != nil {
		if short := (*shortageError)(nil); !errors.As(err, &short) {
			own.err, own.cgroup, own.failed = err, id, time.Now()
		}
		return nil, err
	}
	keep(id, a)
	return a, nil
}

func keep(id uint64, a *Attachment) {
	a.slots.used.Store(uses.Add(1))
	if len(own.attachments) >= maxOwn {
		var oldest uint64
		for id, a := range own.attachments {
			if o := own.attachments[oldest]; o == nil || a.slots.used.Load() < o.slots.used.Load() {
				oldest = id
			}
		}
		_ = own.attachments[oldest].Close()
		delete(own.attachments, oldest)
	}
	if own.attachments == nil {
		own.attachments = make(map[uint64]*Attachment)
	}
	own.attachments[id] = a
}

// dropEnded closes what the kernel has detached. Mappings stay as long as sockets have
// records in them.
func dropEnded() {
	for id, a := range own.attachments {
		if a.ended() {
			_ = a.Close()
			delete(own.attachments, id)
		}
	}
}

// joinOwn joins the instance, if it is attached to the cgroup that this process
// is in and this process may.
func joinOwn(instance uint64) *Attachment {
	own.Lock()
	defer own.Unlock()
	dir, err := openCgroup("")
	if err != nil {
		return nil
	}
	defer dir.Close()
	id, err := cgroupID(dir)
	if err != nil || own.attachments[id] != nil {
		return nil
	}
	dropEnded()
	a, err := join(dir, nil)
	if err != nil {
		return nil
	}
	if a.info.Instance != instance {
		_ = a.Close()
		return nil
	}
	register(instance, a.slots)
	keep(id, a)
	return a
}

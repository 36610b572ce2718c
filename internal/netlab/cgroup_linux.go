// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/internal/cgroup2"
)

// removeTimeout bounds how long Close waits for processes that are on their
// way out of a cgroup.
const removeTimeout = 2 * time.Second

var cgroupSeq atomic.Uint64

// Cgroup is a cgroup2 directory made for one lab. Its methods may be called
// concurrently.
type Cgroup struct {
	path string

	mu   sync.Mutex
	home string // where the process was before Enter; empty while it isn't in
}

// NewCgroup creates a cgroup below the calling process's own. Its name is made
// unique; the given one only helps to recognise it.
//
// Cgroups left behind by processes that were killed are removed on the way.
// If the process isn't in a cgroup2 hierarchy the error matches
// [cgroup2.ErrNoCgroup2].
func NewCgroup(name string) (*Cgroup, error) {
	if name == "" || strings.ContainsAny(name, "/\n") {
		return nil, fmt.Errorf("netlab: add cgroup %q: %w", name, unix.EINVAL)
	}
	own, err := cgroup2.Self()
	if err != nil {
		return nil, fmt.Errorf("netlab: add cgroup %s: %w", name, err)
	}
	sweep(own)

	me, err := thisProcess()
	if err != nil {
		return nil, fmt.Errorf("netlab: add cgroup %s: %w", name, err)
	}
	path := filepath.Join(own, cgroupName(name, me, cgroupSeq.Add(1)))
	if err := os.Mkdir(path, 0o755); err != nil {
		return nil, fmt.Errorf("netlab: add cgroup: %w", err)
	}
	return &Cgroup{path: path}, nil
}

// Path returns the cgroup's absolute directory.
func (c *Cgroup) Path() string { return c.path }

// Enter moves the calling process with all its threads into the cgroup. leave
// moves it back to where it was, and does nothing if it's not in any more.
//
// A socket belongs for good to the cgroup its creator was in at the time.
// Sockets created before Enter are not in the cgroup; those created between
// Enter and leave stay in it.
func (c *Cgroup) Enter() (leave func() error, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.home != "" {
		return nil, fmt.Errorf("netlab: enter cgroup %s: already in", c.path)
	}
	home, err := cgroup2.Self()
	if err != nil {
		return nil, fmt.Errorf("netlab: enter cgroup %s: %w", c.path, err)
	}
	if err := moveTo(c.path); err != nil {
		return nil, fmt.Errorf("netlab: enter cgroup: %w", err)
	}
	c.home = home
	return c.leave, nil
}

func (c *Cgroup) leave() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.home == "" {
		return nil
	}
	if err := moveTo(c.home); err != nil {
		return fmt.Errorf("netlab: leave cgroup: %w", err)
	}
	c.home = ""
	return nil
}

// Close removes the cgroup, after having left it if the process is still in.
// It waits a bounded time for other processes in it to finish exiting, but ends
// none. Closing it again does nothing.
func (c *Cgroup) Close() error {
	if err := c.leave(); err != nil {
		return err
	}
	deadline := time.Now().Add(removeTimeout)
	for {
		err := unix.Rmdir(c.path)
		switch {
		case err == nil || err == unix.ENOENT:
			return nil
		case err != unix.EBUSY && err != unix.EINTR || time.Now().After(deadline):
			return fmt.Errorf("netlab: remove cgroup %s%s: %w", c.path, inhabitants(c.path), err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// OwnCgroups returns the directories of the cgroups that this process has
// created below its own and that still exist.
func OwnCgroups() ([]string, error) {
	own, err := cgroup2.Self()
	if errors.Is(err, cgroup2.ErrNoCgroup2) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	me, err := thisProcess()
	if err != nil {
		return nil, err
	}
	var dirs []string
	for dir, p := range labCgroups(own) {
		if p == me {
			dirs = append(dirs, dir)
		}
	}
	return dirs, nil
}

func moveTo(dir string) error {
	// Zero is whoever writes it, whichever pid namespace that is in.
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0)
}

// inhabitants describes the processes in a cgroup for an error message.
func inhabitants(dir string) string {
	procs, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	pids := strings.Fields(string(procs))
	if err != nil || len(pids) == 0 {
		return ""
	}
	return fmt.Sprintf(" (in use by processes %s)", strings.Join(pids, ", "))
}

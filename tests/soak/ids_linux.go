// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// ids are the BPF objects that processes of the soak had open. The kernel does not
// use an id again, so that whether each is gone can be told on a machine where
// others load programs, too.
type ids struct {
	mu   sync.Mutex
	seen map[object]bool
}

type object struct {
	kind string // as in /proc/<pid>/fdinfo
	id   uint32
}

// add looks through the descriptors of a process.
func (s *ids) add(pid int) error {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen == nil {
		s.seen = make(map[object]bool)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue // the descriptor of this directory
		}
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b)) {
			key, value, _ := strings.Cut(line, ":")
			switch key {
			case "map_id", "prog_id", "link_id":
				id, err := strconv.ParseUint(strings.TrimSpace(value), 10, 32)
				if err != nil {
					return err
				}
				s.seen[object{key, uint32(id)}] = true
			}
		}
	}
	return nil
}

// left waits until all are gone, and describes those that stay. The kernel frees
// them in its own time.
func (s *ids) left(wait time.Duration) (int, []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.seen)
	for end := time.Now().Add(wait); ; time.Sleep(10 * time.Millisecond) {
		for o := range s.seen {
			if !o.exists() {
				delete(s.seen, o)
			}
		}
		if len(s.seen) == 0 || time.Now().After(end) {
			break
		}
	}
	var left []string
	for o := range s.seen {
		left = append(left, o.String())
		// Told once.
		delete(s.seen, o)
	}
	return n, left
}

func (o object) exists() bool {
	var c interface{ Close() error }
	var err error
	switch o.kind {
	case "map_id":
		c, err = ebpf.NewMapFromID(ebpf.MapID(o.id))
	case "prog_id":
		c, err = ebpf.NewProgramFromID(ebpf.ProgramID(o.id))
	case "link_id":
		c, err = link.NewFromID(link.ID(o.id))
	}
	if err == nil {
		_ = c.Close()
	}
	return !errors.Is(err, os.ErrNotExist)
}

// String says what it is as well, for one that stays.
func (o object) String() string {
	var what any = "gone now"
	switch o.kind {
	case "map_id":
		if m, err := ebpf.NewMapFromID(ebpf.MapID(o.id)); err == nil {
			defer m.Close()
			what, _ = m.Info()
		}
	case "prog_id":
		if p, err := ebpf.NewProgramFromID(ebpf.ProgramID(o.id)); err == nil {
			defer p.Close()
			what, _ = p.Info()
		}
	case "link_id":
		if k, err := link.NewFromID(link.ID(o.id)); err == nil {
			defer k.Close()
			what, _ = k.Info()
		}
	}
	return fmt.Sprintf("%s %d: %+v", o.kind, o.id, what)
}

// without runs f while nobody looks: who attaches opens for a moment what others
// have attached, to see whether it can be shared.
func (s *ids) without(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// addOwn is add for this process.
func (s *ids) addOwn() error { return s.add(os.Getpid()) }

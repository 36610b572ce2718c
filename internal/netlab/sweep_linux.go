// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const cgroupPrefix = "sockmeta-"

// process identifies a process beyond the reuse of its pid.
type process struct {
	pid   int
	start uint64 // as in /proc/<pid>/stat
}

func thisProcess() (process, error) {
	pid := os.Getpid()
	start, err := startTime(pid)
	return process{pid, start}, err
}

func (p process) alive() bool {
	start, err := startTime(p.pid)
	if err != nil {
		return !os.IsNotExist(err)
	}
	return start == p.start
}

func startTime(pid int) (uint64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseStartTime(string(stat))
}

// parseStartTime returns the field starttime of the text of a /proc/<pid>/stat
// file.
func parseStartTime(stat string) (uint64, error) {
	// The command, in parentheses, is the second field and may hold
	// anything; starttime is the 22nd.
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 {
		return 0, fmt.Errorf("malformed stat file %q", stat)
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// cgroupName returns the name of the n-th cgroup of a process:
// sockmeta-<name>-<pid>-<start>.<n>.
func cgroupName(name string, p process, n uint64) string {
	return fmt.Sprintf("%s%s-%d-%d.%d", cgroupPrefix, name, p.pid, p.start, n)
}

// parseCgroupName returns the process that made a cgroup of the given name, and
// whether this package made it at all.
func parseCgroupName(s string) (p process, ok bool) {
	s, ok = strings.CutPrefix(s, cgroupPrefix)
	if !ok {
		return p, false
	}
	parts := strings.Split(s, "-")
	if len(parts) < 3 {
		return p, false
	}
	start, seq, ok := strings.Cut(parts[len(parts)-1], ".")
	if !ok {
		return p, false
	}
	pid, err := strconv.ParseUint(parts[len(parts)-2], 10, 31)
	if err != nil {
		return p, false
	}
	p.pid = int(pid)
	if p.start, err = strconv.ParseUint(start, 10, 64); err != nil {
		return p, false
	}
	_, err = strconv.ParseUint(seq, 10, 64)
	return p, err == nil
}

// labCgroups yields the directories in dir that this package made, with the
// processes that did.
func labCgroups(dir string) iter.Seq2[string, process] {
	return func(yield func(string, process) bool) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return
		}
		for _, e := range entries {
			p, ok := parseCgroupName(e.Name())
			if ok && e.IsDir() && !yield(filepath.Join(dir, e.Name()), p) {
				return
			}
		}
	}
}

// sweep removes the cgroups in dir whose makers are no more. One that still
// has processes in it stays, for the next sweep to try.
func sweep(dir string) {
	for stale, maker := range labCgroups(dir) {
		if maker.alive() {
			continue
		}
		sweep(stale)
		_ = unix.Rmdir(stale)
	}
}

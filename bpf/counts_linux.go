// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// errClosed is what the methods of an attachment say after Close.
var errClosed = fmt.Errorf("sockmeta: attachment: %w", os.ErrClosed)

// mapNamed returns one of the attachment's maps.
func (a *Attachment) mapNamed(name string) (*ebpf.Map, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if m := a.maps[kernelName(name)]; m != nil {
		return m, nil
	}
	return nil, errClosed
}

// Counts returns what became of the records that were sent from the cgroup.
func (a *Attachment) Counts() (Counts, error) {
	var sum Counts
	m, err := a.mapNamed(countName)
	if err != nil {
		return sum, err
	}
	var cpus []Counts
	if err := m.Lookup(uint32(0), &cpus); err != nil {
		return sum, fmt.Errorf("sockmeta: counts: %w", err)
	}
	for _, c := range cpus {
		sum.Sent += c.Sent
		sum.Stale += c.Stale
		sum.Foreign += c.Foreign
		sum.Malformed += c.Malformed
		sum.Busy += c.Busy
		sum.MarkRefused += c.MarkRefused
		sum.PriorityRefused += c.PriorityRefused
		sum.LaunchRefused += c.LaunchRefused
		sum.LocalKeys += c.LocalKeys
		sum.Local += c.Local
		sum.Full += c.Full
		sum.UserFull += c.UserFull
	}
	return sum, nil
}

// Maps returns the maps by which programs of others read the metadata of what
// leaves, see include/sockmeta_tx.h: for ebpf.CollectionOptions.MapReplacements.
// They are open until the attachment is closed.
func (a *Attachment) Maps() (map[string]*ebpf.Map, error) {
	maps := make(map[string]*ebpf.Map)
	for _, name := range []string{flightsName, connsName} {
		m, err := a.mapNamed(name)
		if err != nil {
			return nil, err
		}
		maps[name] = m
	}
	return maps, nil
}

// PinMaps pins the maps of Maps, by their names, in a directory on a bpffs, which
// it makes where there is none. Nobody but root and this process's user may write that
// or those on the way to it, unless they are sticky. Who pins removes (UnpinMaps): the
// pins outlive the process. After an error there are none.
func (a *Attachment) PinMaps(dir string) error {
	maps, err := a.Maps()
	if err == nil {
		err = pinAll(maps, dir)
	}
	if err != nil {
		return fmt.Errorf("sockmeta: pin maps: %w", err)
	}
	return nil
}

func pinAll(maps map[string]*ebpf.Map, path string) (err error) {
	above, made, err := makePinDir(path)
	if err != nil {
		return err
	}
	defer above.Close()
	var pinned []string
	dir, err := openPinDir(path)
	defer func() {
		if dir != nil {
			if err != nil {
				for _, name := range pinned {
					_ = dir.remove(name)
				}
			}
			_ = dir.Close()
		}
		if err != nil && made {
			_ = unix.Unlinkat(int(above.Fd()), filepath.Base(path), unix.AT_REMOVEDIR)
		}
	}()
	if err != nil {
		return err
	}
	for name, m := range maps {
		pinned = append(pinned, name)
		// In the place of that of an earlier attachment, whose process was killed.
		if err := dir.pin(m, name, nil); err != nil {
			return err
		}
	}
	return nil
}

// makePinDir makes a directory, unless it is there, and returns the one that it is in.
func makePinDir(path string) (above *os.File, made bool, err error) {
	if above, err = openTrusted(filepath.Dir(filepath.Clean(path))); err != nil {
		return nil, false, err
	}
	switch err := unix.Mkdirat(int(above.Fd()), filepath.Base(path), 0o700); {
	case err == nil:
		return above, true, nil
	case err == unix.EEXIST:
		return above, false, nil
	case err == unix.EPERM && strings.Contains(filepath.Base(path), "."):
		err = fmt.Errorf("%s: names on a bpffs have no dots: %w", path, err)
		_ = above.Close()
		return nil, false, err
	default:
		_ = above.Close()
		return nil, false, &os.PathError{Op: "mkdir", Path: path, Err: err}
	}
}

// UnpinMaps removes what PinMaps has put into a directory, and the directory if
// there is nothing else in it.
func UnpinMaps(dir string) error {
	if err := unpinAll(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("sockmeta: unpin maps: %w", err)
	}
	return nil
}

func unpinAll(path string) error {
	dir, err := openPinDir(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	for _, name := range []string{flightsName, connsName} {
		if err := dir.remove(name); err != nil {
			return err
		}
	}
	above, err := openTrusted(filepath.Dir(filepath.Clean(path)))
	if err != nil {
		return err
	}
	defer above.Close()
	// It fails where there is something else.
	_ = unix.Unlinkat(int(above.Fd()), filepath.Base(path), unix.AT_REMOVEDIR)
	return nil
}

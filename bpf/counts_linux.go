// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
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
// it makes where there is none. Who pins removes (UnpinMaps): the pins outlive the
// process. After an error there are none.
func (a *Attachment) PinMaps(dir string) error {
	maps, err := a.Maps()
	if err != nil {
		return err
	}
	err = os.Mkdir(dir, 0o700)
	made := err == nil
	if errors.Is(err, os.ErrExist) {
		err = nil
	}
	for name, m := range maps {
		if err == nil {
			err = pin(m, filepath.Join(dir, name))
		}
	}
	if err == nil {
		return nil
	}
	for name := range maps {
		_ = os.Remove(filepath.Join(dir, name))
	}
	if made {
		_ = os.Remove(dir)
	}
	return fmt.Errorf("sockmeta: pin maps: %w", err)
}

func pin(m *ebpf.Map, path string) error {
	// Of an earlier attachment, whose process was killed.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	clone, err := m.Clone()
	if err != nil {
		return err
	}
	defer clone.Close()
	if err := clone.Pin(path); err != nil {
		return fmt.Errorf("%w: is it on a bpffs?", err)
	}
	return nil
}

// UnpinMaps removes what PinMaps has put into a directory, and the directory if
// there is nothing else in it.
func UnpinMaps(dir string) error {
	for _, name := range []string{flightsName, connsName} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("sockmeta: unpin maps: %w", err)
		}
	}
	// It fails where there is.
	_ = os.Remove(dir)
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// GrantReceiveMap pins the receive map for those whom the grant names. A pin that
// another process left at the path is replaced, anything else there is an error.
// Whoever pins removes (RevokeReceiveMap): the pin outlives the process, and keeps
// the map's memory.
//
// It needs CAP_CHOWN where it is not for the calling user, and a directory on a
// bpffs that the process may write.
func (a *Attachment) GrantReceiveMap(g Grant) error {
	m, err := a.mapNamed(slotsName)
	if err == nil {
		err = pinFor(m, g)
	}
	if err != nil {
		return fmt.Errorf("sockmeta: grant receive map: %w", err)
	}
	return nil
}

func pinFor(m *ebpf.Map, g Grant) error {
	if err := replaceable(g.Path); err != nil {
		return err
	}
	if strings.Contains(filepath.Base(g.Path), ".") {
		return fmt.Errorf("%s: names on a bpffs have no dots: %w", g.Path, unix.EINVAL)
	}
	// Nobody is to open it before it has its owner, or to find nothing there.
	fresh := fmt.Sprintf("%s_%d", g.Path, os.Getpid())
	if err := pin(m, fresh); err != nil {
		return err
	}
	// To read a mapping, a descriptor is needed by which one could write, were
	// the map not frozen (bpf_map_mmap in kernel/bpf/syscall.c).
	err := os.Chown(fresh, g.UID, g.GID)
	if err == nil {
		err = os.Chmod(fresh, 0o660)
	}
	if err == nil {
		err = os.Rename(fresh, g.Path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(fresh))
	}
	return nil
}

// replaceable returns nil where a path is free or has a receive map pinned.
func replaceable(path string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	m, err := ebpf.LoadPinnedMap(path, nil)
	if err != nil {
		return fmt.Errorf("%s is no receive map: %w", path, err)
	}
	defer m.Close()
	info, err := m.Info()
	if err != nil {
		return err
	}
	if info.Name != slotsName {
		return fmt.Errorf("%s is no receive map but %q: %w", path, info.Name, fs.ErrExist)
	}
	return nil
}

// RevokeReceiveMap removes what GrantReceiveMap has put at the path. Processes that
// have mapped the map keep it: to take it from them, they and the attachment have
// to end.
func RevokeReceiveMap(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("sockmeta: revoke receive map: %w", err)
	}
	return nil
}

// openGrant maps the map that is pinned at path, if it is the one that info names
// and nobody can write it.
func openGrant(path string, info Info) (*Slots, error) {
	// For writing, too, though it will not be written, see pinFor.
	m, err := ebpf.LoadPinnedMap(path, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: receive map %s: %w: %s", ErrNotSupported, path, errnoOf(err), mendGrant(err))
	}
	defer m.Close()
	mi, err := m.Info()
	if err != nil {
		return nil, fmt.Errorf("%w: receive map %s: %w", ErrNotSupported, path, err)
	}
	// The socket's own programs say which map it is. Nothing has its number as
	// long as it is there.
	if id, ok := mi.ID(); !ok || uint32(id) != info.RxMapId {
		return nil, fmt.Errorf("%w: receive map %s is map %d, and the socket's programs have map %d: it is another attachment's, or of one that has ended", ErrNotSupported, path, id, info.RxMapId)
	}
	if !mi.Frozen() {
		return nil, fmt.Errorf("%w: receive map %s is not frozen, or /proc is not there to tell", ErrNotSupported, path)
	}
	s, err := mapSlots(m)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotSupported, err)
	}
	return s, nil
}

// errnoOf leaves out what the loader adds to it.
func errnoOf(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

func mendGrant(err error) string {
	switch {
	case errors.Is(err, unix.EACCES):
		return "granted to other users or groups than this process has"
	case errors.Is(err, unix.ENOENT):
		return "nobody has pinned it there"
	case errors.Is(err, unix.EPERM):
		return "a seccomp filter or a security module refuses bpf(2)"
	}
	return "is it a pinned map?"
}

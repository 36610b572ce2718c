// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// GrantReceiveMap pins the receive map for those whom the grant names. A pin that
// another process left at the path is replaced, anything else there is an error.
// Whoever pins removes (RevokeReceiveMap): the pin outlives the process, and keeps
// the map's memory.
//
// It needs CAP_CHOWN where it is not for the calling user, and a directory on a
// bpffs that the process may write, and nobody else but root, unless it is sticky: no
// one else may own or write one on the way to it, either.
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
	path, name, err := pinName(g.Path)
	if err != nil {
		return err
	}
	dir, err := openPinDir(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	there, err := dir.open(name)
	if err == nil {
		err = isReceiveMap(there)
		_ = there.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return dir.pin(m, name, &g)
}

// RevokeReceiveMap removes what GrantReceiveMap has put at the path, and nothing else.
// Processes that have mapped the map keep it: to take it from them, they and the
// attachment have to end.
func RevokeReceiveMap(path string) error {
	if err := revoke(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("sockmeta: revoke receive map: %w", err)
	}
	return nil
}

func revoke(path string) error {
	path, name, err := pinName(path)
	if err != nil {
		return err
	}
	dir, err := openPinDir(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	there, err := dir.open(name)
	if err != nil {
		return err
	}
	defer there.Close()
	// Whoever has granted it to others may be none of them.
	if err := isReceiveMap(there); err != nil && !errors.Is(err, unix.EACCES) {
		return err
	}
	return dir.remove(name)
}

// openGrant maps the map that is pinned at path, if it is the one that info names
// and nobody can write it.
func openGrant(path string, info Info) (*Slots, error) {
	// For writing, too, though it will not be written, see give. Whoever could put
	// another map at the path gets nothing by it: which one it is to be is not for the
	// path to say.
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
	if id, ok := mi.ID(); !ok || uint32(id) != info.RxMapID {
		return nil, fmt.Errorf("%w: receive map %s is map %d, and the socket's programs have map %d: it is another attachment's, or of one that has ended", ErrNotSupported, path, id, info.RxMapID)
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

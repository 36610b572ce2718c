// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/internal/abi"
	"github.com/sockmeta/sockmeta-go/internal/xdpmeta"
)

// secretDirs are where a bpffs is looked for. The second is the host's for those who
// see another /sys, as under "ip netns exec", and may look.
var secretDirs = []string{"/sys/fs/bpf", "/proc/1/root/sys/fs/bpf"}

const secretFile = "/run/" + secretName

// The record of this process, found once: what it loads has to agree.
var theHost struct {
	sync.Mutex
	record abi.Host
}

// hostRecord returns the host's secret, and makes it if this is the first process to
// ask. Where it can neither be read nor be put where others find it, it is this
// process's own.
func hostRecord() (abi.Host, error) {
	theHost.Lock()
	defer theHost.Unlock()
	if isSet(theHost.record) {
		return theHost.record, nil
	}
	fresh, err := newHostRecord()
	if err != nil {
		return fresh, err
	}
	theHost.record = shareRecord(fresh, secretDirs, secretFile)
	return theHost.record, nil
}

// secretMap returns a map with the host's record, for programs that are to be loaded.
func secretMap() (*ebpf.Map, error) {
	h, err := hostRecord()
	if err != nil {
		return nil, err
	}
	return newSecretMap(h)
}

// newSecretMap makes a map with a record that stays as it is: the verifier takes it for
// constants.
func newSecretMap(h abi.Host) (*ebpf.Map, error) {
	m, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: secretName, Type: ebpf.Array, Flags: unix.BPF_F_RDONLY_PROG,
		KeySize: 4, ValueSize: uint32(unsafe.Sizeof(h)), MaxEntries: 1,
	})
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", secretName, err)
	}
	if err := errors.Join(m.Put(uint32(0), &h), m.Freeze()); err != nil {
		return nil, errors.Join(fmt.Errorf("map %s: %w", secretName, err), m.Close())
	}
	return m, nil
}

// shareRecord returns the record that the others of the host have, which is fresh
// for the first of them.
func shareRecord(fresh abi.Host, dirs []string, file string) abi.Host {
	for _, dir := range dirs {
		if !isBPFFS(dir) || !isSafeDir(dir) {
			continue
		}
		// Those who came before there was a bpffs use the file.
		if h, err := readFile(file); err == nil {
			fresh = h
		}
		if h, err := sharePin(filepath.Join(dir, secretName), fresh); err == nil {
			return h
		}
	}
	if h, err := shareFile(file, fresh); err == nil {
		return h
	}
	return fresh
}

func isSet(h abi.Host) bool { return h.Secret[0] != 0 && h.Secret[1] != 0 }

func newHostRecord() (h abi.Host, err error) {
	for !isSet(h) {
		var random [8]byte
		rand.Read(random[:])
		h.Secret[0] = binary.NativeEndian.Uint32(random[:])
		h.Secret[1] = binary.NativeEndian.Uint32(random[4:])
	}
	// Where areas have 32 bytes they are needed for values.
	roomy, err := xdpmeta.Fits(36)
	if roomy {
		h.Gap = 1
	}
	return h, err
}

func isBPFFS(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && uint32(st.Type) == uint32(unix.BPF_FS_MAGIC)
}

// isSafeDir says whether nobody but its owner, root or this user, can take files of
// the directory away from those that they belong to.
func isSafeDir(dir string) bool {
	var st unix.Stat_t
	return unix.Stat(dir, &st) == nil && isOurs(&st) && (st.Mode&0o022 == 0 || st.Mode&unix.S_ISVTX != 0)
}

// checkSecret says whether a file is what it has to be: trusted, and not open to all.
// An administrator may have given it to a group.
func checkSecret(path string) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return &fs.PathError{Op: "lstat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || !isOurs(&st) || st.Mode&0o027 != 0 {
		return &fs.PathError{Op: "trust", Path: path, Err: fs.ErrPermission}
	}
	return nil
}

func isOurs(st *unix.Stat_t) bool { return st.Uid == 0 || int(st.Uid) == os.Geteuid() }

// sharePin returns the record that is pinned at a path, and pins the fresh one if
// there is none.
func sharePin(path string, fresh abi.Host) (abi.Host, error) {
	for {
		h, err := readPin(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			err = pinRecord(path, fresh)
			if err != nil && !errors.Is(err, fs.ErrExist) {
				return h, err
			}
		case err != nil || isSet(h):
			return h, err
		default:
			// A producer in C came first, and its loader made the map.
			if err := setPinned(path, fresh); err != nil {
				return h, err
			}
		}
	}
}

// readPin returns the record that is pinned, one that is not set if it can still
// change.
func readPin(path string) (h abi.Host, err error) {
	if err := checkSecret(path); err != nil {
		return h, err
	}
	m, err := ebpf.LoadPinnedMap(path, &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return h, err
	}
	defer m.Close()
	info, err := m.Info()
	if err != nil {
		return h, err
	}
	if err := m.Lookup(uint32(0), &h); err != nil {
		return h, err
	}
	if !info.Frozen() {
		return abi.Host{}, nil
	}
	if !isSet(h) {
		return h, fmt.Errorf("%s has no secret: remove it", path)
	}
	return h, nil
}

// pinRecord pins a new map with the record.
func pinRecord(path string, h abi.Host) error {
	m, err := newSecretMap(h)
	if err != nil {
		return err
	}
	defer m.Close()
	return m.Pin(path)
}

// setPinned fills a map that was pinned empty. Of several processes that do the last
// to write before the first to freeze it wins.
func setPinned(path string, h abi.Host) error {
	m, err := ebpf.LoadPinnedMap(path, nil)
	if err != nil {
		return err
	}
	defer m.Close()
	if err := m.Put(uint32(0), &h); err != nil && !errors.Is(err, unix.EPERM) {
		return err
	}
	// It is frozen already, or somebody writes.
	if err := m.Freeze(); err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EBUSY) {
		return err
	}
	return nil
}

// shareFile returns the record in a file, and writes the fresh one if there is none.
func shareFile(path string, fresh abi.Host) (abi.Host, error) {
	for {
		h, err := readFile(path)
		if !errors.Is(err, fs.ErrNotExist) {
			return h, err
		}
		if err := writeFile(path, fresh); err != nil && !errors.Is(err, fs.ErrExist) {
			return h, err
		}
	}
}

func readFile(path string) (h abi.Host, err error) {
	if !isSafeDir(filepath.Dir(path)) {
		return h, &fs.PathError{Op: "trust", Path: filepath.Dir(path), Err: fs.ErrPermission}
	}
	if err := checkSecret(path); err != nil {
		return h, err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return h, err
	}
	if _, err := binary.Decode(b, binary.NativeEndian, &h); err != nil || !isSet(h) {
		return h, fmt.Errorf("%s has no secret: remove it", path)
	}
	return h, nil
}

// writeFile makes a file with the record, whole from its beginning.
func writeFile(path string, h abi.Host) error {
	b, err := binary.Append(nil, binary.NativeEndian, &h)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".sockmeta_secret-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Link(f.Name(), path)
	}
	return errors.Join(err, os.Remove(f.Name()))
}

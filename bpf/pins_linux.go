// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// A pinDir is a directory on a bpffs in which nobody but root and this process's user
// can change what a name stands for, held by a descriptor: a path may lead elsewhere
// at the next look. Other users may have names of their own there if it is sticky.
type pinDir struct {
	*os.File // O_PATH
}

// openPinDir opens the directory. It refuses one that others can put another in the
// place of, or whose names they can.
func openPinDir(path string) (*pinDir, error) {
	dir, err := openTrusted(path)
	if err != nil {
		return nil, err
	}
	if err := onBPFFS(dir); err != nil {
		_ = dir.Close()
		return nil, err
	}
	return &pinDir{dir}, nil
}

func onBPFFS(f *os.File) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return &fs.PathError{Op: "fstatfs", Path: f.Name(), Err: err}
	}
	if uint32(st.Type) != unix.BPF_FS_MAGIC {
		return fmt.Errorf("%s is not on a bpffs, where alone maps can be pinned (mount -t bpf -o mode=0755 bpf DIR): %w", f.Name(), unix.EINVAL)
	}
	return nil
}

// pinName splits a path into its directory and a name that a bpffs can have.
func pinName(path string) (dir, name string, err error) {
	dir, name = filepath.Split(filepath.Clean(path))
	if dir == "" {
		dir = "."
	}
	if strings.Contains(name, ".") {
		return "", "", fmt.Errorf("%s: names on a bpffs have no dots: %w", path, unix.EINVAL)
	}
	return dir, name, nil
}

// openTrusted opens a directory by O_PATH, and looks at each one on the way, and at
// each symbolic link: whoever can write one of them, or owns it, can lead us to
// another place, and is to be root or this process's user. The last part is no
// symbolic link.
func openTrusted(path string) (_ *os.File, err error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	at, err := openAt(unix.AT_FDCWD, "/", abs)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = at.Close()
		}
	}()
	rest := strings.Split(abs, "/")
	for links := 0; ; {
		if err := trusted(at); err != nil {
			return nil, err
		}
		for len(rest) > 0 && (rest[0] == "" || rest[0] == ".") {
			rest = rest[1:]
		}
		if len(rest) == 0 {
			return at, nil
		}
		next, err := openAt(int(at.Fd()), rest[0], abs)
		if err != nil {
			return nil, err
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(next.Fd()), &st); err != nil {
			_ = next.Close()
			return nil, &fs.PathError{Op: "fstat", Path: abs, Err: err}
		}
		rest = rest[1:]
		if st.Mode&unix.S_IFMT != unix.S_IFLNK {
			_ = at.Close()
			at = next
			continue
		}
		to := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(int(next.Fd()), "", to)
		_ = next.Close()
		links++
		switch {
		case err != nil:
			return nil, &fs.PathError{Op: "readlink", Path: abs, Err: err}
		case len(rest) == 0 || links > 40:
			return nil, &fs.PathError{Op: "open", Path: abs, Err: unix.ELOOP}
		case !ours(st.Uid):
			return nil, fmt.Errorf("%s goes through a symbolic link of user %d: %w", abs, st.Uid, unix.EPERM)
		}
		rest = append(strings.Split(string(to[:n]), "/"), rest...)
		if to[0] == '/' {
			_ = at.Close()
			if at, err = openAt(unix.AT_FDCWD, "/", abs); err != nil {
				return nil, err
			}
		}
	}
}

// openAt opens by O_PATH, a symbolic link itself.
func openAt(dir int, name, path string) (*os.File, error) {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

func ours(uid uint32) bool { return uid == 0 || int(uid) == os.Geteuid() }

// trusted says who else can change what names in a directory stand for.
func trusted(dir *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return &fs.PathError{Op: "fstat", Path: dir.Name(), Err: err}
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return &fs.PathError{Op: "open", Path: dir.Name(), Err: unix.ENOTDIR}
	case !ours(st.Uid):
		return fmt.Errorf("%s: user %d owns a directory on the way, and could put something else in its place: use one of root's (mode 0755, or sticky): %w", dir.Name(), st.Uid, unix.EPERM)
	case st.Mode&0o022 != 0 && st.Mode&unix.S_ISVTX == 0:
		return fmt.Errorf("%s: others may write a directory on the way (mode %#o), and could put something else in its place: use one with mode 0755, or a sticky one: %w", dir.Name(), st.Mode&0o7777, unix.EPERM)
	}
	return nil
}

// procPath is a path to what a descriptor of O_PATH stands for, whatever has become
// of its name, for calls that take no descriptor.
func procPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// open opens a name by O_PATH, if it is a file on the bpffs.
func (d *pinDir) open(name string) (*os.File, error) {
	f, err := openAt(int(d.Fd()), name, filepath.Join(d.Name(), name))
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	err = unix.Fstat(int(f.Fd()), &st)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = unix.EINVAL
	}
	if err == nil {
		err = onBPFFS(f)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%s is no pinned map: %w", f.Name(), err)
	}
	return f, nil
}

// remove removes a name that is there.
func (d *pinDir) remove(name string) error {
	if err := unix.Unlinkat(int(d.Fd()), name, 0); err != nil && err != unix.ENOENT {
		return &fs.PathError{Op: "unlink", Path: filepath.Join(d.Name(), name), Err: err}
	}
	return nil
}

// pin pins the map by a name, in the place of what is there, for root or this
// process's user and those whom the grant names. It returns once the name stands for
// the map.
func (d *pinDir) pin(m *ebpf.Map, name string, g *Grant) (err error) {
	clone, err := m.Clone()
	if err != nil {
		return err
	}
	defer clone.Close()
	// Nobody is to open it before it has its owner, or to find nothing there.
	fresh := name + "_" + strings.ToLower(rand.Text()[:16])
	if err := clone.Pin(filepath.Join(procPath(d.File), fresh)); err != nil {
		return fmt.Errorf("pin in %s: %w", d.Name(), err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.remove(fresh))
		}
	}()
	f, err := d.open(fresh)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := isMap(f, m); err != nil {
		return err
	}
	if g != nil {
		if err := give(f, g); err != nil {
			return err
		}
	}
	if err := unix.Renameat(int(d.Fd()), fresh, int(d.Fd()), name); err != nil {
		return &fs.PathError{Op: "rename", Path: filepath.Join(d.Name(), name), Err: err}
	}
	// In a sticky directory the grantee may have put a name of its own between.
	now, err := d.open(name)
	if err != nil {
		return err
	}
	defer now.Close()
	return isMap(now, m)
}

// give changes the owner and the mode of a file that is known to be a pin. The owner
// comes last: it takes no capability but CAP_CHOWN then.
func give(f *os.File, g *Grant) error {
	chown := func(uid, gid int) error {
		if err := unix.Fchownat(int(f.Fd()), "", uid, gid, unix.AT_EMPTY_PATH); err != nil {
			return &fs.PathError{Op: "chown", Path: f.Name(), Err: err}
		}
		return nil
	}
	if err := chown(-1, g.GID); err != nil {
		return err
	}
	// To read a mapping, a descriptor is needed by which one could write, were
	// the map not frozen (bpf_map_mmap in kernel/bpf/syscall.c).
	if err := unix.Chmod(procPath(f), 0o660); err != nil {
		return &fs.PathError{Op: "chmod", Path: f.Name(), Err: err}
	}
	return chown(g.UID, -1)
}

// isMap says whether a file is the pin of a map.
func isMap(f *os.File, m *ebpf.Map) error {
	want, err := m.Info()
	if err != nil {
		return err
	}
	pinned, err := ebpf.LoadPinnedMap(procPath(f), nil)
	if err != nil {
		// It is another user's by now, who let us open it by name.
		if errors.Is(err, unix.EACCES) {
			return nil
		}
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	defer pinned.Close()
	got, err := pinned.Info()
	if err != nil {
		return err
	}
	a, _ := want.ID()
	if b, _ := got.ID(); a != b {
		return fmt.Errorf("%s is another map, which somebody has put in its place: %w", f.Name(), unix.EEXIST)
	}
	return nil
}

// isReceiveMap says whether a file is the pin of a receive map, of any attachment.
func isReceiveMap(f *os.File) error {
	m, err := ebpf.LoadPinnedMap(procPath(f), nil)
	if err != nil {
		return fmt.Errorf("%s is no receive map: %w", f.Name(), err)
	}
	defer m.Close()
	info, err := m.Info()
	if err != nil {
		return err
	}
	if info.Name != slotsName {
		return fmt.Errorf("%s is no receive map but %q: %w", f.Name(), info.Name, fs.ErrExist)
	}
	return nil
}

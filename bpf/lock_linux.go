// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lockFile is what attachers lock so that two that start together find each other.
// It is root's alone: whoever may open a cgroup's directory may lock that, and keep
// attachers waiting. Like /run/xtables.lock it stays, empty, until the next boot.
const lockFile = "/run/sockmeta.lock"

// lockPatience is how long an attacher waits for others, which take some hundred
// milliseconds, and may have been stopped.
const lockPatience = time.Second

// lockCgroup locks the byte of the file that is the cgroup's until the result is
// closed. It returns nil where there is no such file to be had, as for users other
// than root: attaching without it is correct, and costs at worst the sharing. Nobody
// joins without CAP_SYS_ADMIN anyhow.
func lockCgroup(id uint64) io.Closer {
	f, err := openLock(lockFile)
	if err != nil {
		return nil
	}
	// Of an open file description: neither other threads nor other files that this
	// process opens and closes give it up.
	lk := unix.Flock_t{Type: unix.F_WRLCK, Start: int64(id &^ (1 << 63)), Len: 1}
	for end := time.Now().Add(lockPatience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lk); err != unix.EAGAIN && err != unix.EACCES {
			return f
		}
	}
	return f
}

// openLock opens or makes the file. It refuses one that others may open, or made.
func openLock(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o077 != 0 || st.Uid != 0 {
		_ = f.Close()
		return nil, &os.PathError{Op: "open", Path: path, Err: unix.EPERM}
	}
	return f, nil
}

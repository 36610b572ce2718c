// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"path"
)

// File types as they are in a mode.
const (
	modeDir  = 0o040000
	modeFile = 0o100000
)

// cpioWriter writes an archive in the "newc" format, which is the one that the
// kernel unpacks as its initramfs. Directories are written before what is in
// them, as the kernel makes none on its own.
type cpioWriter struct {
	w    io.Writer
	ino  int
	off  int64
	dirs map[string]bool
	err  error
}

func newCPIOWriter(w io.Writer) *cpioWriter {
	return &cpioWriter{w: w, dirs: map[string]bool{".": true, "/": true}}
}

// dir adds a directory, unless it's there already.
func (c *cpioWriter) dir(name string, perm os.FileMode) {
	if c.dirs[name] {
		return
	}
	c.dir(path.Dir(name), 0o755)
	c.dirs[name] = true
	c.header(name, modeDir|int64(perm), 0)
}

// bytes adds a file.
func (c *cpioWriter) bytes(name string, perm os.FileMode, data []byte) {
	c.dir(path.Dir(name), 0o755)
	c.header(name, modeFile|int64(perm), int64(len(data)))
	c.write(data)
	c.pad()
}

// copy adds a file with what's in a file of the host.
func (c *cpioWriter) copy(name string, perm os.FileMode, from string) {
	data, err := os.ReadFile(from)
	if err != nil {
		c.fail(err)
		return
	}
	c.bytes(name, perm, data)
}

// close ends the archive and returns the first error there was.
func (c *cpioWriter) close() error {
	c.header("TRAILER!!!", 0, 0)
	return c.err
}

func (c *cpioWriter) header(name string, mode, size int64) {
	c.ino++
	// Magic, inode, mode, uid, gid, links, mtime, size, device and its
	// special twin, length of the name with its NUL, checksum.
	c.write(fmt.Appendf(nil, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		c.ino, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name)+1, 0))
	c.write(append([]byte(name), 0))
	c.pad()
}

// pad aligns what comes next to 4 bytes.
func (c *cpioWriter) pad() {
	c.write(make([]byte, -c.off&3))
}

func (c *cpioWriter) write(p []byte) {
	if c.err != nil {
		return
	}
	n, err := c.w.Write(p)
	c.off += int64(n)
	c.fail(err)
}

func (c *cpioWriter) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

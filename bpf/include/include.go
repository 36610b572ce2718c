// SPDX-License-Identifier: Apache-2.0

// Package include has the C headers of sockmeta: those for BPF programs
// (sockmeta.h, sockmeta_tx.h, sockmeta_cmsg.h) and the one for C applications
// (sockmeta_socket.h).
//
// A module that imports this package has the headers in its vendor directory, too. The
// directory for a compiler's -I is the package's own:
//
//	go list -f '{{.Dir}}' github.com/sockmeta/sockmeta-go/bpf/include
//
// docs/guide-c.md shows what to do with it.
package include

import (
	"crypto/rand"
	"embed"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// FS has the headers, without directories.
//
//go:embed *.h
var FS embed.FS

// WriteDir writes the headers to a directory, which it makes where there is none. Each
// header is whole at any time: a compiler that runs meanwhile reads the earlier one or
// the new one. A symbolic link in a header's place is replaced, and what it points to
// stays as it is. Errors are of type *fs.PathError.
func WriteDir(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return pathError("open", dir, err)
	}
	defer root.Close()
	headers, err := FS.ReadDir(".")
	if err != nil {
		return err
	}
	for _, h := range headers {
		text, err := FS.ReadFile(h.Name())
		if err != nil {
			return err
		}
		if err := replace(root, h.Name(), text); err != nil {
			return err
		}
	}
	return nil
}

// replace gives a name another content, by a file that takes its place.
func replace(root *os.Root, name string, text []byte) (err error) {
	path := filepath.Join(root.Name(), name)
	fresh := "." + name + "." + rand.Text()
	f, err := root.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return pathError("create", path, err)
	}
	defer func() {
		if err != nil {
			_ = root.Remove(fresh)
		}
	}()
	_, err = f.Write(text)
	if err := errors.Join(err, f.Close()); err != nil {
		return pathError("write", path, err)
	}
	if err := root.Rename(fresh, name); err != nil {
		return pathError("rename", path, err)
	}
	return nil
}

// pathError names the header, and not the file that was to take its place.
func pathError(op, path string, err error) error {
	var pe *fs.PathError
	var le *os.LinkError
	switch {
	case errors.As(err, &pe):
		err = pe.Err
	case errors.As(err, &le):
		err = le.Err
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}

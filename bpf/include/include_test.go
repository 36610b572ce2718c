// SPDX-License-Identifier: Apache-2.0

package include_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/sockmeta/sockmeta-go/bpf/include"
)

// headers are the embedded files' names.
func headers(t *testing.T) []string {
	t.Helper()
	names, err := fs.Glob(include.FS, "*")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"sockmeta.h", "sockmeta_abi.h", "sockmeta_cmsg.h", "sockmeta_socket.h", "sockmeta_tx.h"} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is not embedded: %q", want, names)
		}
	}
	return names
}

// checkDir looks whether a directory has the headers, as ordinary files, and, of what is
// named like one, nothing else.
func checkDir(t *testing.T, dir string) {
	t.Helper()
	names := headers(t)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		if filepath.Ext(e.Name()) == ".go" {
			continue
		}
		got = append(got, e.Name())
		if !e.Type().IsRegular() {
			t.Errorf("%s is no ordinary file: %v", e.Name(), e.Type())
		}
		want, _ := include.FS.ReadFile(e.Name())
		if text, err := os.ReadFile(filepath.Join(dir, e.Name())); err != nil || !bytes.Equal(text, want) {
			t.Errorf("%s differs from what is embedded: %v", e.Name(), err)
		}
	}
	if !slices.Equal(got, names) {
		t.Errorf("%s has %q, want %q", dir, got, names)
	}
}

func TestWriteDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	for _, when := range []string{"new", "again"} {
		if err := include.WriteDir(dir); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		checkDir(t, dir)
	}
}

// TestWriteDirLinks has names of headers stand for other things beforehand.
func TestWriteDirLinks(t *testing.T) {
	dir, outside := t.TempDir(), filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(outside, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{
		"sockmeta.h": outside, "sockmeta_tx.h": filepath.Join(dir, "nowhere"), "sockmeta_abi.h": "sockmeta_abi.h",
	} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Skip(err)
		}
	}
	if err := include.WriteDir(dir); err != nil {
		t.Fatal(err)
	}
	checkDir(t, dir)
	if text, err := os.ReadFile(outside); err != nil || string(text) != "precious" {
		t.Errorf("what the link pointed to is %q, %v", text, err)
	}
}

// TestWriteDirFails looks at what errors say, and at what is left in the directory.
func TestWriteDirFails(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	occupied := t.TempDir()
	if err := os.MkdirAll(filepath.Join(occupied, "sockmeta.h", "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ dir, path string }{
		{file, file},
		{filepath.Join(file, "below"), file},
		{occupied, filepath.Join(occupied, "sockmeta.h")},
	} {
		err := include.WriteDir(tt.dir)
		var pe *fs.PathError
		if !errors.As(err, &pe) || pe != err || pe.Path != tt.path {
			t.Errorf("%s: %v (%T), want an *fs.PathError about %s", tt.dir, err, err, tt.path)
		}
	}
	if left, err := os.ReadDir(occupied); err != nil || len(left) != 1 {
		t.Errorf("after the error the directory has %v, %v", left, err)
	}
}

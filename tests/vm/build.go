// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// testBinary is a package's tests, built.
type testBinary struct {
	pkg string
	// dir is the package's directory, file the binary, testdata a directory
	// that has to be beside it or empty.
	dir, file, testdata string
}

// guestBuild is in the environment of go build: the kernels are all amd64, and
// there are no shared libraries beside them.
var guestBuild = []string{"GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0"}

// self is this program's package.
const self = "github.com/sockmeta/sockmeta-go/tests/vm"

// buildInit builds this program for the virtual machine.
func buildInit(ctx context.Context, file string) error {
	_, err := command(ctx, "", guestBuild, "go", "build", "-ldflags=-s -w", "-o", file, self)
	return err
}

// buildTests builds the tests of all packages that match the patterns and have
// any, but for this one's, which are about the host.
func buildTests(ctx context.Context, dir string, patterns []string) ([]testBinary, error) {
	out, err := command(ctx, "", guestBuild, "go", append([]string{
		"list", "-json=ImportPath,Dir,TestGoFiles,XTestGoFiles",
	}, patterns...)...)
	if err != nil {
		return nil, err
	}
	var tests []testBinary
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath, Dir           string
			TestGoFiles, XTestGoFiles []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return tests, nil
		} else if err != nil {
			return nil, err
		}
		if len(p.TestGoFiles)+len(p.XTestGoFiles) == 0 || p.ImportPath == self {
			continue
		}
		t := testBinary{
			pkg:  p.ImportPath,
			dir:  p.Dir,
			file: filepath.Join(dir, strings.ReplaceAll(p.ImportPath, "/", "_")+".test"),
		}
		if _, err := command(ctx, p.Dir, guestBuild, "go", "test", "-c", "-o", t.file); err != nil {
			return nil, err
		}
		if data := filepath.Join(p.Dir, "testdata"); isDir(data) {
			t.testdata = data
		}
		tests = append(tests, t)
	}
}

// shortName returns a package's name without what all have in common, the path
// of the module.
func shortName(pkg string) string {
	return strings.TrimPrefix(pkg, path.Dir(path.Dir(self))+"/")
}

func isDir(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"
)

// testSettings are what all test binaries are run with.
type testSettings struct {
	run     string
	timeout time.Duration
}

// killAfter is how long a test binary may go on after its own timeout, at which
// it prints what it's doing.
const killAfter = 15 * time.Second

// testEnv makes tests do less, as an emulated machine is slow.
var testEnv = []string{"SOCKMETA_INTEGRITY_DATAGRAMS=20000"}

// writeInitramfs writes all that the virtual machine has by way of files.
func writeInitramfs(ctx context.Context, file, initBinary, rawsend string, modules []module, tests []testBinary, s testSettings) (err error) {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buffered := bufio.NewWriterSize(f, 1<<20)
	c := newCPIOWriter(buffered)

	var p plan
	c.copy("init", 0o755, initBinary)
	c.bytes("etc/hosts", 0o644, []byte("127.0.0.1 localhost\n::1 localhost\n"))
	for _, name := range guestPrograms {
		if err := copyProgram(ctx, c, name); err != nil {
			return err
		}
	}
	c.copy("bin/rawsend", 0o755, rawsend)
	for _, m := range modules {
		name := path.Join("modules", m.name+".ko")
		c.bytes(name, 0o644, m.data)
		p.Modules = append(p.Modules, "/"+name)
	}
	for _, t := range tests {
		g := guestTest{
			Package: t.pkg,
			Dir:     path.Join("/src", shortName(t.pkg)),
			Binary:  path.Base(t.pkg) + ".test",
			Args:    []string{"-test.v=test2json", "-test.timeout=" + s.timeout.String()},
			Env:     testEnv,
			Timeout: s.timeout + killAfter,
		}
		if s.run != "" {
			g.Args = append(g.Args, "-test.run="+s.run)
		}
		p.Tests = append(p.Tests, g)
		c.copy(path.Join(g.Dir, g.Binary)[1:], 0o755, t.file)
		if t.testdata != "" {
			if err := copyTree(c, path.Join(g.Dir, "testdata")[1:], t.testdata); err != nil {
				return err
			}
		}
	}
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	c.bytes(planFile[1:], 0o644, data)
	return errors.Join(c.close(), buffered.Flush())
}

func copyTree(c *cpioWriter, to, from string) error {
	return filepath.WalkDir(from, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(from, name)
		c.copy(path.Join(to, filepath.ToSlash(rel)), 0o644, name)
		return err
	})
}

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
)

// writeInitramfs writes all that the virtual machine has by way of files.
func writeInitramfs(ctx context.Context, file, initBinary string, built map[string]string, modules []module, tests []testBinary, s testSettings) (err error) {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buffered := bufio.NewWriterSize(f, 1<<20)
	c := newCPIOWriter(buffered)

	var p plan
	var kmod []string
	c.copy("init", 0o755, initBinary)
	c.bytes("etc/hosts", 0o644, []byte("127.0.0.1 localhost\n::1 localhost\n"))
	for _, name := range guestPrograms {
		if err := copyProgram(ctx, c, name); err != nil {
			return err
		}
	}
	for name, file := range built {
		c.copy(path.Join("bin", name), 0o755, file)
	}
	for _, m := range modules {
		name := path.Join("modules", m.name+".ko")
		c.bytes(name, 0o644, m.data)
		p.Modules = append(p.Modules, "/"+name)
		if m.name == nativeModule {
			kmod = []string{kmodEnv + "=/" + name}
		}
	}
	for _, t := range tests {
		dir := guestTestDir(t.pkg)
		run := newTestRun(t, dir, path.Join(dir, path.Base(t.pkg)+".test"), s)
		run.Env = append(run.Env, kmod...)
		p.Tests = append(p.Tests, run)
		c.copy(run.File[1:], 0o755, t.file)
		if t.testdata != "" {
			if err := copyTree(c, path.Join(dir, "testdata")[1:], t.testdata); err != nil {
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

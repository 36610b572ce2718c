// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/zip"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

const (
	library = "github.com/sockmeta/sockmeta-go"
	command = library + "/cmd"
)

// TestInstall publishes the tree, as a proxy of its own has it, and installs the command by
// its version, as README says: that allows no replace and knows of no workspace.
func TestInstall(t *testing.T) {
	tool, err := exec.LookPath("go")
	if err != nil {
		t.Skip(err)
	}
	mod, err := os.ReadFile("../go.mod")
	must(t, err)
	m := regexp.MustCompile(`(?m)^require ` + library + ` (\S+)$`).FindSubmatch(mod)
	if m == nil {
		t.Fatalf("cmd/go.mod requires no version of the library:\n%s", mod)
	}
	version := string(m[1])
	proxy := t.TempDir()
	publish(t, proxy, library, version, "../..")
	publish(t, proxy, command, version, "..")

	// What else it needs is where the module's own build has it from.
	out, err := exec.CommandContext(t.Context(), tool, "env", "GOMODCACHE", "GOPROXY").Output()
	must(t, err)
	cache, upstream, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	bin := t.TempDir()
	install := exec.CommandContext(t.Context(), tool, "install", "-trimpath", command+"/sockmeta@"+version)
	install.Dir = bin
	install.Env = append(os.Environ(),
		"GOBIN="+bin,
		// Nobody else is to find this version of the library.
		"GOMODCACHE="+t.TempDir(),
		"GOFLAGS=-modcacherw",
		"GOPROXY="+strings.Join([]string{fileURL(proxy), fileURL(filepath.Join(cache, "cache", "download")), upstream}, ","),
		"GOSUMDB=off",
	)
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", install, err, out)
	}
	name := "sockmeta"
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	headers := filepath.Join(bin, "include")
	if out, err := exec.CommandContext(t.Context(), filepath.Join(bin, name), "headers", headers).CombinedOutput(); err != nil {
		t.Fatalf("sockmeta headers: %v\n%s", err, out)
	}
	if _, err := os.Stat(filepath.Join(headers, "sockmeta.h")); err != nil {
		t.Error(err)
	}
}

func fileURL(dir string) string {
	dir = filepath.ToSlash(dir)
	if !strings.HasPrefix(dir, "/") {
		dir = "/" + dir
	}
	return "file://" + dir
}

// publish adds a version of a module to a proxy: https://go.dev/ref/mod#goproxy-protocol
func publish(t *testing.T, proxy, module, version, dir string) {
	t.Helper()
	at := filepath.Join(proxy, filepath.FromSlash(module), "@v")
	must(t, os.MkdirAll(at, 0o700))
	mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(at, version+".mod"), mod, 0o600))
	must(t, os.WriteFile(filepath.Join(at, "list"), []byte(version+"\n"), 0o600))
	must(t, os.WriteFile(filepath.Join(at, version+".info"), fmt.Appendf(nil, `{"Version":%q}`, version), 0o600))
	file, err := os.Create(filepath.Join(at, version+".zip"))
	must(t, err)
	defer file.Close()
	w := zip.NewWriter(file)
	must(t, filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		rel, rerr := filepath.Rel(dir, name)
		if err := errors.Join(err, rerr); err != nil || rel == "." {
			return err
		}
		if d.IsDir() {
			// Nested modules, and what is none of the sources.
			if _, err := os.Stat(filepath.Join(name, "go.mod")); err == nil || strings.HasPrefix(d.Name(), ".") {
				return fs.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		f, err := w.Create(path.Join(module+"@"+version, filepath.ToSlash(rel)))
		if err == nil {
			_, err = f.Write(text)
		}
		return err
	}))
	must(t, w.Close())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

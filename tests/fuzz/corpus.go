// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// maxInput is the size in bytes of the largest input worth a commit.
const maxInput = 2048

type input struct {
	file string
	size int64
	time time.Time
}

// aliases are the types that package testing writes by either name.
var aliases = strings.NewReplacer("rune", "int32", "byte", "uint8")

// types are those of the target's arguments, one a line.
func (in input) types() (string, error) {
	data, err := os.ReadFile(in.file)
	var types strings.Builder
	for line := range strings.Lines(string(data)) {
		typ, _, _ := strings.Cut(line, "(")
		types.WriteString(aliases.Replace(strings.TrimSpace(typ)) + "\n")
	}
	return types.String(), err
}

// keepInputs copies inputs from the build cache to the target's corpus, until that
// has n.
func keepInputs(t target, n int) error {
	cache, err := goOutput(t.module, "env", "GOCACHE")
	if err != nil {
		return err
	}
	pkg, err := goOutput(t.module, "list", "./"+filepath.ToSlash(t.dir))
	if err != nil {
		return err
	}
	have, err := os.ReadDir(t.corpus())
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	found, err := inputs(filepath.Join(cache, "fuzz", filepath.FromSlash(pkg), t.name))
	if err != nil {
		return err
	}
	for _, in := range spread(found, n-len(have)) {
		data, err := os.ReadFile(in.file)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(t.corpus(), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(t.corpus(), filepath.Base(in.file)), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func goOutput(dir string, args ...string) (string, error) {
	cmd := exec.Command("go", args...)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}

// inputs returns those in a directory that are small enough, the smallest first,
// without those from before the target's arguments became what they are.
func inputs(dir string) (all []input, err error) {
	entries, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		if info.Mode().IsRegular() && info.Size() <= maxInput {
			all = append(all, input{filepath.Join(dir, e.Name()), info.Size(), info.ModTime()})
		}
	}
	if len(all) == 0 {
		return nil, nil
	}
	newest := slices.MaxFunc(all, func(a, b input) int { return a.time.Compare(b.time) })
	want, err := newest.types()
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(in input) bool {
		types, err := in.types()
		return err != nil || types != want
	})
	slices.SortStableFunc(all, func(a, b input) int { return cmp.Compare(a.size, b.size) })
	return all, nil
}

// spread returns n of the inputs, from the smallest to the largest.
func spread(all []input, n int) (some []input) {
	if n >= len(all) {
		return all
	}
	for i := range n {
		some = append(some, all[i*len(all)/n])
	}
	return some
}

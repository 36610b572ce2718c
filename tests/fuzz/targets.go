// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A target is a fuzz function.
type target struct {
	module string // directory of its go.mod
	dir    string // of its package, relative to module
	path   string // the same, relative to the repository, with slashes
	name   string
}

func (t target) String() string { return t.path + " " + t.name }

func (t target) corpus() string {
	return filepath.Join(t.module, t.dir, "testdata", "fuzz", t.name)
}

// findTargets returns the targets in the test files below root that are for this
// system, those of nested modules too.
func findTargets(root string) (targets []target, err error) {
	modules := make(map[string]string) // by directory
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); path != root && (name == "testdata" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_")) {
				return filepath.SkipDir
			}
			modules[path] = modules[filepath.Dir(path)]
			if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil {
				modules[path] = path
			}
			return nil
		}
		dir, file := filepath.Split(path)
		dir = filepath.Clean(dir)
		if !strings.HasSuffix(file, "_test.go") {
			return nil
		}
		if ok, err := build.Default.MatchFile(dir, file); !ok || err != nil {
			return err
		}
		names, err := fuzzFunctions(path)
		if err != nil {
			return err
		}
		module := modules[dir]
		rel, err := filepath.Rel(module, dir)
		if err != nil {
			return err
		}
		pkg, err := filepath.Rel(root, dir)
		for _, name := range names {
			targets = append(targets, target{module: module, dir: rel, path: filepath.ToSlash(pkg), name: name})
		}
		return err
	})
	slices.SortFunc(targets, func(a, b target) int {
		return cmp.Or(cmp.Compare(a.module, b.module), cmp.Compare(a.dir, b.dir), cmp.Compare(a.name, b.name))
	})
	if err == nil && targets == nil {
		err = fmt.Errorf("no fuzz targets below %s", root)
	}
	return targets, err
}

func fuzzFunctions(path string) (names []string, err error) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Fuzz") && takesF(f.Type) {
			names = append(names, f.Name.Name)
		}
	}
	return names, nil
}

// takesF says whether the only parameter is a *testing.F.
func takesF(f *ast.FuncType) bool {
	if f.Params.NumFields() != 1 {
		return false
	}
	star, ok := f.Params.List[0].Type.(*ast.StarExpr)
	if !ok {
		return false
	}
	sel, ok := star.X.(*ast.SelectorExpr)
	return ok && sel.Sel.Name == "F"
}

// findRoot returns the directory of the outermost go.mod around the current
// directory.
func findRoot() (root string, err error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			root = dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			break
		}
		dir = up
	}
	if root == "" {
		return "", fmt.Errorf("no go.mod around the current directory")
	}
	return root, nil
}

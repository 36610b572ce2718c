// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// wantedModules is what tests may make use of, unless the kernel has it built
// in.
var wantedModules = []string{
	"veth", "vxlan", "geneve", "ip_gre", "ip6_gre", "ipip", "sit", "ip6_tunnel", "fou", "dummy", "tun", "bridge", "8021q", "macvlan",
	"sch_fq", "sch_etf", "sch_ingress", "cls_bpf",
}

// nativeModule is the kernel module of bpf/kmod.
const nativeModule = "sockmeta"

// module is a kernel module, decompressed.
type module struct {
	name string
	data []byte
}

// loadModules returns the wanted modules with those they depend on, in an order
// in which they can be loaded.
func loadModules(ctx context.Context, dir string, wanted []string) ([]module, error) {
	files, err := moduleFiles(dir)
	if err != nil {
		return nil, err
	}
	builtin, err := builtinModules(dir)
	if err != nil {
		return nil, err
	}

	data := make(map[string][]byte)
	order, err := resolveModules(wanted, func(name string) ([]string, error) {
		if builtin[name] {
			return nil, errBuiltin
		}
		file, ok := files[name]
		if !ok {
			return nil, fmt.Errorf("no module %s in %s", name, dir)
		}
		var err error
		if data[name], err = readModule(ctx, file); err != nil {
			return nil, err
		}
		return moduleDepends(data[name])
	})
	if err != nil {
		return nil, err
	}
	modules := make([]module, len(order))
	for i, name := range order {
		modules[i] = module{name, data[name]}
	}
	return modules, nil
}

// errBuiltin says that a module is part of the kernel.
var errBuiltin = fmt.Errorf("built in")

// resolveModules returns the given modules and those they depend on, each after
// its dependencies.
func resolveModules(wanted []string, depends func(name string) ([]string, error)) ([]string, error) {
	var order []string
	seen := make(map[string]bool)
	var visit func(name string) error
	visit = func(name string) error {
		if seen[name] {
			return nil
		}
		seen[name] = true
		deps, err := depends(name)
		if err == errBuiltin {
			return nil
		}
		if err != nil {
			return err
		}
		for _, d := range deps {
			if err := visit(d); err != nil {
				return err
			}
		}
		order = append(order, name)
		return nil
	}
	for _, name := range wanted {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// moduleFiles returns the files of all modules below dir by name.
func moduleFiles(dir string) (map[string]string, error) {
	files := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if base, _, ok := strings.Cut(d.Name(), ".ko"); ok && d.Type().IsRegular() {
			files[moduleName(base)] = path
		}
		return nil
	})
	return files, err
}

func builtinModules(dir string) (map[string]bool, error) {
	list, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	builtin := make(map[string]bool)
	for line := range strings.Lines(string(list)) {
		builtin[moduleName(strings.TrimSuffix(filepath.Base(strings.TrimSpace(line)), ".ko"))] = true
	}
	return builtin, nil
}

// moduleName is the name of a module whose file has the name base. The two
// spellings are the same to the kernel.
func moduleName(base string) string { return strings.ReplaceAll(base, "-", "_") }

func readModule(ctx context.Context, file string) ([]byte, error) {
	switch filepath.Ext(file) {
	case ".ko":
		return os.ReadFile(file)
	case ".xz":
		return command(ctx, "", nil, "xz", "-dc", file)
	}
	return nil, fmt.Errorf("%s: compressed in an unknown way", file)
}

// moduleDepends returns the names of the modules that a module says it depends
// on.
func moduleDepends(data []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("module without .modinfo")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	return parseDepends(info), nil
}

// parseDepends finds the "depends" entry among the "key=value" strings of a
// .modinfo section.
func parseDepends(info []byte) []string {
	for entry := range bytes.SplitSeq(info, []byte{0}) {
		if list, ok := bytes.CutPrefix(entry, []byte("depends=")); ok {
			names := strings.Split(moduleName(string(list)), ",")
			return slices.DeleteFunc(names, func(s string) bool { return s == "" })
		}
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

// programs are what must be installed, with the packages: what this one needs, and
// what tests run as clients that know nothing of sockmeta.
var programs = map[string][]string{
	qemu:    {"qemu-system-x86"},
	"xz":    {"xz-utils"},
	"cc":    {"gcc", "libc6-dev"},
	"socat": {"socat"},
}

// guestPrograms are those of them that tests run.
var guestPrograms = []string{"socat"}

// missingPackages returns the packages of programs that aren't installed.
func missingPackages() (packages []string) {
	for program, pkgs := range programs {
		if _, err := exec.LookPath(program); err != nil {
			packages = append(packages, pkgs...)
		}
	}
	return packages
}

// buildPrograms builds what tests would otherwise compile, for which there is no
// compiler in the virtual machine, and returns the files by the programs' names. C is
// linked statically, as there are no libraries but those of guestPrograms.
func buildPrograms(ctx context.Context, dir string) (map[string]string, error) {
	own, err := packageDir(ctx)
	if err != nil {
		return nil, err
	}
	root := filepath.Join(own, "../..")
	built := map[string]string{"client32": filepath.Join(dir, "client32")}
	for _, name := range []string{"rawsend", "recvmeta", "sendmeta", "tcpmeta"} {
		built[name] = filepath.Join(dir, name)
		if _, err := command(ctx, "", nil, "cc", "-static", "-Wall", "-Wextra", "-Werror",
			"-I", filepath.Join(root, "bpf/include"), "-o", built[name], filepath.Join(root, "examples/c", name+".c")); err != nil {
			return nil, err
		}
	}
	_, err = command(ctx, root, []string{"GOOS=linux", "GOARCH=386", "CGO_ENABLED=0"}, "go", "build",
		"-o", built["client32"], "./tests/client32")
	return built, err
}

// packageDir returns the directory of this program's package.
func packageDir(ctx context.Context) (string, error) {
	out, err := command(ctx, "", nil, "go", "list", "-f", "{{.Dir}}", self)
	return strings.TrimSpace(string(out)), err
}

var library = regexp.MustCompile(`(?m)^\t(?:\S+ => )?(/\S+) \(0x`)

// copyProgram adds a program of the host and the libraries it's linked with.
func copyProgram(ctx context.Context, c *cpioWriter, name string) error {
	file, err := exec.LookPath(name)
	if err != nil {
		return err
	}
	c.copy(path.Join("bin", name), 0o755, file)
	out, err := command(ctx, "", nil, "ldd", file)
	if err != nil {
		return err
	}
	for _, m := range library.FindAllSubmatch(out, -1) {
		lib := string(m[1])
		c.copy(lib[1:], 0o755, lib)
	}
	return nil
}

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

// buildRawsend builds the example in C, linked statically as there are no
// libraries in the virtual machine but those of guestPrograms.
func buildRawsend(ctx context.Context, file string) error {
	dir, err := command(ctx, "", nil, "go", "list", "-f", "{{.Dir}}", self)
	if err != nil {
		return err
	}
	source := filepath.Join(strings.TrimSpace(string(dir)), "../../examples/c/rawsend.c")
	_, err = command(ctx, "", nil, "cc", "-static", "-Wall", "-Wextra", "-Werror", "-o", file, source)
	return err
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

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// buildTools are the packages that a module is built with, besides a kernel's headers:
// all that DKMS and make run, as nothing is there but what is unpacked.
var buildTools = []string{
	"dkms", "gcc", "make", "pahole", "libc6-dev", "dash", "bash", "coreutils", "findutils", "grep", "sed", "mawk", "diffutils",
	"perl", "util-linux", "sparse",
}

// sparseFlags are for sparse 0.6.4 to understand the headers of Linux 7.3: it doesn't know
// __typeof_unqual__, and takes the length of no string for a constant, as MODULE_LICENSE
// and its like do.
const sparseFlags = "-D__typeof_unqual__=__typeof__ '-D__builtin_strlen(s)=(sizeof(s)-1)'"

// kmodVersion is the version that README installs.
const kmodVersion = "1"

// buildModule builds the kernel module for a kernel.
func (o *options) buildModule(ctx context.Context, k kernel) (module, error) {
	if os.Geteuid() != 0 {
		return module{}, errors.New("building a kernel module needs root, for chroot")
	}
	root := buildRoot(o.cache, k.release)
	if !isDir(root) {
		progress("%s: fetch what modules are built with", k.series)
		if err := o.fetchBuildRoot(ctx, root, k); err != nil {
			return module{}, err
		}
	}
	dir, err := packageDir(ctx)
	if err != nil {
		return module{}, err
	}
	progress("%s: build the kernel module", k.series)
	build, err := os.MkdirTemp(filepath.Join(root, "tmp"), "kmod-")
	if err != nil {
		return module{}, err
	}
	defer os.RemoveAll(build)
	source := os.DirFS(filepath.Join(dir, "../../bpf/kmod"))
	name := nativeModule + "-" + kmodVersion
	if err := os.CopyFS(filepath.Join(build, name), source); err != nil {
		return module{}, err
	}
	tree := filepath.Join(build, "dkms")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return module{}, err
	}
	inside, err := filepath.Rel(root, build)
	if err != nil {
		return module{}, err
	}
	inside = "/" + inside

	// As users install it.
	out, err := chroot(ctx, root, "dkms", "build", nativeModule+"/"+kmodVersion, "-k", k.release,
		"--sourcetree", inside, "--dkmstree", inside+"/dkms")
	if err != nil {
		// It is there once DKMS has come to run make.
		log, _ := os.ReadFile(filepath.Join(tree, nativeModule, kmodVersion, "build", "make.log"))
		return module{}, fmt.Errorf("%w\n%s%s", err, out, log)
	}
	built, err := filepath.Glob(filepath.Join(tree, nativeModule, kmodVersion, k.release, "*/module", nativeModule+".ko*"))
	if err != nil || len(built) != 1 {
		return module{}, fmt.Errorf("modules that DKMS has built: %q, want one (%v)\n%s", built, err, out)
	}
	data, err := readModule(ctx, built[0])
	if err != nil {
		return module{}, err
	}

	out, err = chroot(ctx, root, "make", "-C", filepath.Join(inside, name), "KVER="+k.release,
		"W=1", "C=2", "CF="+sparseFlags)
	if err != nil {
		return module{}, fmt.Errorf("%w\n%s", err, out)
	}
	if err := checkBuild(source, string(out)); err != nil {
		return module{}, err
	}
	return module{nativeModule, data}, nil
}

// checkBuild returns an error where the compiler or sparse complained, or sparse has not
// seen a file of the source. out is what make wrote.
func checkBuild(source fs.FS, out string) error {
	if strings.Contains(out, "warning") || strings.Contains(out, "error:") {
		return fmt.Errorf("the kernel module is not built without a warning:\n%s", out)
	}
	checked := make(map[string]bool)
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "CHECK" {
			checked[filepath.Base(f[1])] = true
		}
	}
	files, err := fs.Glob(source, "*.c")
	if err != nil {
		return err
	}
	for _, name := range files {
		if !checked[name] {
			return fmt.Errorf("sparse has not checked %s:\n%s", name, out)
		}
	}
	return nil
}

// chroot runs a command in another root directory and returns all that it wrote.
// objtool and DKMS read /proc, and shells write to /dev/null. They are there for nobody
// else, and gone with the last process.
func chroot(ctx context.Context, root string, args ...string) ([]byte, error) {
	const mounts = `for d in proc dev; do mount --bind "/$d" "$0/$d"; done && exec chroot "$0" "$@" 2>&1`
	return command(ctx, "", []string{"LANG=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, "unshare",
		append([]string{"--mount", "sh", "-ec", mounts, root}, args...)...)
}

// buildRoot is where the tools for modules of a kernel are, in the cache: a directory
// for each list of them.
func buildRoot(cache, release string) string {
	h := fnv.New32a()
	io.WriteString(h, strings.Join(buildTools, " "))
	return filepath.Join(cache, "kbuild", fmt.Sprintf("%s-%08x", release, h.Sum32()))
}

// fetchBuildRoot unpacks the packages that it takes to build modules for a kernel into
// a directory to be the root of who builds: Debian's tools need libraries of its own
// release.
func (o *options) fetchBuildRoot(ctx context.Context, root string, k kernel) error {
	a, err := openApt(ctx, filepath.Join(o.cache, "apt"))
	if err != nil {
		return err
	}
	packages, err := a.closure(ctx, append([]string{"linux-headers-" + k.release}, buildTools...)...)
	if err != nil {
		return err
	}
	// The kernel itself is a dependency of its headers.
	packages = slices.DeleteFunc(packages, func(p string) bool {
		for _, part := range []string{"image", "modules", "binary", "base"} {
			if strings.HasPrefix(p, "linux-"+part) {
				return true
			}
		}
		return false
	})
	if err := os.MkdirAll(filepath.Dir(root), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(root), "fetch-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := a.unpack(ctx, filepath.Join(tmp, "root"), packages...); err != nil {
		return err
	}
	// What maintainer scripts do.
	for name, to := range map[string]string{
		"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64", "usr/bin/awk": "mawk",
	} {
		name = filepath.Join(tmp, "root", name)
		if _, err := os.Lstat(name); err == nil {
			continue
		}
		if err := os.Symlink(to, name); err != nil {
			return err
		}
	}
	for _, dir := range []string{"proc", "dev", "tmp"} {
		if err := os.MkdirAll(filepath.Join(tmp, "root", dir), 0o755); err != nil {
			return err
		}
	}
	// By it, Linux 7.3 finds out whether sparse works. Debian's headers are without.
	checker := filepath.Join(tmp, "root/usr/src/linux-headers-"+k.release, "scripts/checker-valid.sh")
	if err := os.WriteFile(checker, []byte("#!/bin/sh\necho 1\n"), 0o755); err != nil {
		return err
	}
	// Those of other lists of tools.
	old, err := filepath.Glob(filepath.Join(filepath.Dir(root), k.release+"*"))
	if err != nil {
		return err
	}
	for _, dir := range old {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return os.Rename(filepath.Join(tmp, "root"), root)
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// buildTools are the packages that a module is built with, besides a kernel's headers:
// all that make runs, as nothing is there but what is unpacked.
var buildTools = []string{
	"gcc", "make", "pahole", "libc6-dev", "dash", "bash", "coreutils", "findutils", "grep", "sed", "mawk", "diffutils", "perl",
}

// buildModule builds the kernel module for a kernel.
func (o *options) buildModule(ctx context.Context, k kernel) (module, error) {
	if os.Geteuid() != 0 {
		return module{}, errors.New("building a kernel module needs root, for chroot")
	}
	root := filepath.Join(o.cache, "kbuild", k.release)
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
	if err := os.CopyFS(build, os.DirFS(filepath.Join(dir, "../../bpf/kmod"))); err != nil {
		return module{}, err
	}
	inside, err := filepath.Rel(root, build)
	if err != nil {
		return module{}, err
	}
	// objtool reads /proc. It is there for nobody else, and gone with the last process.
	out, err := command(ctx, "", []string{"LANG=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, "unshare", "--mount", "sh", "-c",
		`mount --bind /proc "$0/proc" && exec chroot "$0" make -s -C "$1" KDIR="$2" W=1 2>&1`,
		root, "/"+inside, "/usr/src/linux-headers-"+k.release)
	if err != nil {
		return module{}, fmt.Errorf("%w\n%s", err, out)
	}
	if strings.Contains(string(out), "warning") {
		return module{}, fmt.Errorf("the kernel module is not built without a warning:\n%s", out)
	}
	data, err := os.ReadFile(filepath.Join(build, nativeModule+".ko"))
	return module{nativeModule, data}, err
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
	for _, dir := range []string{"proc", "tmp"} {
		if err := os.MkdirAll(filepath.Join(tmp, "root", dir), 0o755); err != nil {
			return err
		}
	}
	return os.Rename(filepath.Join(tmp, "root"), root)
}

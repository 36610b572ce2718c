// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// kernel is one that was downloaded.
type kernel struct {
	// series is what the user calls it, like 6.12.
	series string
	// release is what uname says.
	release string
	// image is the file to boot, modules the directory with the modules.
	image, modules string
}

// flavour is that of Debian's kernels which lacks drivers for real hardware.
const flavour = "-cloud-amd64"

// cachedKernel returns the kernel of the series that an earlier run has left.
func cachedKernel(cache, series string) (kernel, bool) {
	return unpackedKernel(filepath.Join(cache, series), series)
}

// fetchKernel downloads the newest kernel of the series into the cache.
func fetchKernel(ctx context.Context, a *apt, cache, series string) (kernel, error) {
	names, err := a.packages(ctx, "linux-image-"+series)
	if err != nil {
		return kernel{}, err
	}
	release, err := newestRelease(names, series)
	if err != nil {
		return kernel{}, err
	}
	// Newer kernels come in parts, that the image's package depends on.
	packages := []string{"linux-image-" + release}
	for _, part := range []string{"linux-base-", "linux-binary-", "linux-modules-"} {
		names, err := a.packages(ctx, part+release)
		if err != nil {
			return kernel{}, err
		}
		if slices.Contains(names, part+release) {
			packages = append(packages, part+release)
		}
	}

	if err := os.MkdirAll(cache, 0o755); err != nil {
		return kernel{}, err
	}
	tmp, err := os.MkdirTemp(cache, "fetch-")
	if err != nil {
		return kernel{}, err
	}
	defer os.RemoveAll(tmp)
	root := filepath.Join(tmp, "root")
	if err := a.unpack(ctx, root, packages...); err != nil {
		return kernel{}, err
	}
	if _, ok := unpackedKernel(root, series); !ok {
		return kernel{}, fmt.Errorf("%s: no kernel with modules inside", strings.Join(packages, ", "))
	}
	dir := filepath.Join(cache, series)
	if err := os.RemoveAll(dir); err != nil {
		return kernel{}, err
	}
	if err := os.Rename(root, dir); err != nil {
		return kernel{}, err
	}
	k, _ := unpackedKernel(dir, series)
	return k, nil
}

// unpackedKernel finds the kernel in the tree of its packages' files. Those are
// not in the same places in all releases of Debian.
func unpackedKernel(dir, series string) (k kernel, ok bool) {
	for _, lib := range []string{"lib", "usr/lib"} {
		modules, _ := filepath.Glob(filepath.Join(dir, lib, "modules", "*"))
		if len(modules) != 1 {
			continue
		}
		release := filepath.Base(modules[0])
		for _, image := range []string{
			filepath.Join(dir, "boot", "vmlinuz-"+release),
			filepath.Join(modules[0], "vmlinuz"),
		} {
			if _, err := os.Stat(image); err == nil {
				return kernel{series: series, release: release, image: image, modules: modules[0]}, true
			}
		}
	}
	return kernel{}, false
}

// newestRelease returns the newest kernel of a series among packages.
func newestRelease(packages []string, series string) (string, error) {
	re := regexp.MustCompile(`^linux-image-(` + regexp.QuoteMeta(series) + `\.[0-9].*` + flavour + `)$`)
	var releases []string
	for _, p := range packages {
		if m := re.FindStringSubmatch(p); m != nil {
			releases = append(releases, m[1])
		}
	}
	if len(releases) == 0 {
		return "", fmt.Errorf("no kernel %s in %s", series, strings.Join(suites, ", "))
	}
	return slices.MaxFunc(releases, compareReleases), nil
}

var number = regexp.MustCompile(`[0-9]+`)

// compareReleases compares the numbers in two releases' names.
func compareReleases(a, b string) int {
	numbers := func(s string) (n []int) {
		for _, digits := range number.FindAllString(s, -1) {
			i, _ := strconv.Atoi(digits)
			n = append(n, i)
		}
		return n
	}
	return cmp.Or(slices.Compare(numbers(a), numbers(b)), cmp.Compare(a, b))
}

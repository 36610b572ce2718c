// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// suites are those of Debian that kernels come from.
var suites = []string{"bookworm", "trixie", "trixie-backports"}

const (
	debianKeyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

	// listsAge is for how long package lists are used before they are
	// fetched again.
	listsAge = 24 * time.Hour
)

// apt is an apt of its own: it shares with the host's how packages are reached,
// and neither package lists nor sources. What it downloads apt has verified
// against the archive's keys.
type apt struct {
	conf string
}

// openApt returns the apt that lives in dir, with package lists that are
// current. The mirror is the one that the host's apt uses.
func openApt(ctx context.Context, dir string) (*apt, error) {
	mirror, err := debianMirror(ctx)
	if err != nil {
		return nil, err
	}
	for _, d := range []string{"state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	var sources strings.Builder
	for _, suite := range suites {
		fmt.Fprintf(&sources, "deb [arch=amd64 signed-by=%s] %s %s main\n", debianKeyring, mirror, suite)
	}
	sourceList := filepath.Join(dir, "sources.list")
	changed, err := writeIfChanged(sourceList, sources.String())
	if err != nil {
		return nil, err
	}

	a := &apt{conf: filepath.Join(dir, "apt.conf")}
	// Given on the command line this comes after the host's configuration,
	// of which the hooks are dropped: they are about the host's packages.
	// The user that apt downloads as may not have access to a home
	// directory.
	if _, err := writeIfChanged(a.conf, fmt.Sprintf(`Dir::State %q;
Dir::State::status "/dev/null";
Dir::Cache %q;
Dir::Etc::sourcelist %q;
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Architecture "amd64";
APT::Sandbox::User "root";
Acquire::Languages "none";
#clear APT::Architectures;
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear Acquire::IndexTargets::deb::DEP-11;
`, filepath.Join(dir, "state"), filepath.Join(dir, "cache"), sourceList)); err != nil {
		return nil, err
	}

	stamp := filepath.Join(dir, "updated")
	if info, err := os.Stat(stamp); err == nil && !changed && time.Since(info.ModTime()) < listsAge {
		return a, nil
	}
	if _, err := a.run(ctx, dir, "apt-get", "--error-on=any", "update"); err != nil {
		return nil, err
	}
	return a, os.WriteFile(stamp, nil, 0o644)
}

// packages returns the names of all packages that start with prefix.
func (a *apt) packages(ctx context.Context, prefix string) ([]string, error) {
	out, err := a.run(ctx, "", "apt-cache", "pkgnames", prefix)
	return strings.Fields(string(out)), err
}

// download puts the newest versions of packages into dir.
func (a *apt) download(ctx context.Context, dir string, packages ...string) error {
	_, err := a.run(ctx, dir, "apt-get", append([]string{"download"}, packages...)...)
	return err
}

// closure returns the packages and all that they depend on, by name.
func (a *apt) closure(ctx context.Context, packages ...string) ([]string, error) {
	out, err := a.run(ctx, "", "apt-get", append([]string{"-y", "--no-install-recommends", "--print-uris", "install"}, packages...)...)
	if err != nil {
		return nil, err
	}
	var all []string
	for line := range strings.Lines(string(out)) {
		// 'URI' file size checksum
		if f := strings.Fields(line); len(f) >= 3 && strings.HasPrefix(line, "'") {
			name, _, _ := strings.Cut(f[1], "_")
			all = append(all, name)
		}
	}
	return all, nil
}

// unpack downloads packages and puts their files into root.
func (a *apt) unpack(ctx context.Context, root string, packages ...string) error {
	debs := root + ".debs"
	if err := os.Mkdir(debs, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(debs)
	if err := a.download(ctx, debs, packages...); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil {
		return err
	}
	for _, deb := range files {
		if _, err := command(ctx, "", nil, "dpkg-deb", "-x", deb, root); err != nil {
			return err
		}
	}
	return nil
}

func (a *apt) run(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	return command(ctx, dir, nil, name, append([]string{"-q", "-c", a.conf}, args...)...)
}

// debianMirror returns where the host's apt gets Debian from.
func debianMirror(ctx context.Context) (string, error) {
	out, err := command(ctx, "", nil, "apt-get", "indextargets", "--format", "$(SITE) $(RELEASE)", "Created-By: Packages")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(out)) {
		site, release, _ := strings.Cut(strings.TrimSpace(line), " ")
		if strings.HasSuffix(strings.TrimSuffix(site, "/"), "/debian") && !strings.HasSuffix(release, "-security") {
			return site, nil
		}
	}
	return "", errors.New("the host's apt has no source of Debian packages to take kernels from")
}

// install gets packages onto the host, if the process may do that.
func install(ctx context.Context, packages ...string) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("missing packages: apt-get install %s", strings.Join(packages, " "))
	}
	if _, err := command(ctx, "", nil, "apt-get", "-q", "update"); err != nil {
		return err
	}
	args := append([]string{"-q", "-y", "install", "--no-install-recommends"}, packages...)
	_, err := command(ctx, "", []string{"DEBIAN_FRONTEND=noninteractive"}, "apt-get", args...)
	return err
}

func writeIfChanged(name, data string) (changed bool, err error) {
	if old, err := os.ReadFile(name); err == nil && string(old) == data {
		return false, nil
	}
	return true, os.WriteFile(name, []byte(data), 0o644)
}

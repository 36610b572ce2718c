// SPDX-License-Identifier: Apache-2.0

package cgroup2

import (
	"path"
	"slices"
	"strings"
	"testing"
)

const hybrid = `31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
`

func TestParseMounts(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		want     []MountPoint
	}{
		{"empty", "", nil},
		{"hybrid", hybrid, []MountPoint{{"/sys/fs/cgroup/unified", "/"}}},
		{"v1 only", "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n", nil},
		{"optional fields", "41 31 0:38 /a /cg rw shared:9 master:3 - cgroup2 none rw\n", []MountPoint{{"/cg", "/a"}}},
		{"no final newline", "41 31 0:38 / /cg rw - cgroup2 none rw", []MountPoint{{"/cg", "/"}}},
		{"escapes", `41 31 0:38 /a\040b /c\011d\134e rw - cgroup2 none rw`, []MountPoint{{"/c\td\\e", "/a b"}}},
		{"directory named cgroup2", "41 31 0:38 / /cgroup2 rw - tmpfs cgroup2 rw\n", nil},
		{"outside root", "41 31 0:38 /../.. /cg rw - cgroup2 none rw\n", []MountPoint{{"/cg", "/../.."}}},
		{"truncated", "41 31 0:38 / /cg rw -\n41 31 0:38\n\n", nil},
		{"no separator", "41 31 0:38 / /cg rw cgroup2 none rw\n", nil},
		{"relative root", "41 31 0:38 a /cg rw - cgroup2 none rw\n", nil},
		{"two", "1 0 0:38 / /x rw - cgroup2 none rw\n2 0 0:38 /a /y rw - cgroup2 none rw\n",
			[]MountPoint{{"/x", "/"}, {"/y", "/a"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := parseMounts(tc.in); !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestParseOwn(t *testing.T) {
	for _, tc := range []struct {
		name, in, want string
		ok             bool
	}{
		{"hybrid", "9:name=systemd:/\n4:memory:/x\n0::/a/b\n", "/a/b", true},
		{"root", "0::/\n", "/", true},
		{"colons and spaces", "0::/a:b c\n", "/a:b c", true},
		{"outside", "0::/../x\n", "/../x", true},
		{"v1 only", "4:memory:/x\n", "", false},
		{"ten", "10::/x\n", "", false},
		{"empty path", "0::\n", "", false},
		{"empty", "", "", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got, ok := parseOwn(tc.in); got != tc.want || ok != tc.ok {
				t.Errorf("got %q, %v, want %q, %v", got, ok, tc.want, tc.ok)
			}
		})
	}
}

func TestLocate(t *testing.T) {
	for _, tc := range []struct {
		name   string
		mounts []MountPoint
		own    string
		dir    string
	}{
		{"root", []MountPoint{{"/cg", "/"}}, "/", "/cg"},
		{"child", []MountPoint{{"/cg", "/"}}, "/a/b", "/cg/a/b"},
		{"bind of an ancestor", []MountPoint{{"/cg", "/a"}}, "/a/b", "/cg/b"},
		{"bind of itself", []MountPoint{{"/cg", "/a"}}, "/a", "/cg"},
		{"bind of another", []MountPoint{{"/cg", "/z"}}, "/a", ""},
		{"prefix of the name only", []MountPoint{{"/cg", "/a"}}, "/ab", ""},
		{"other then own", []MountPoint{{"/x", "/z"}, {"/y", "/a"}}, "/a/b", "/y/b"},
		{"widest wins", []MountPoint{{"/x", "/a"}, {"/y", "/"}}, "/a/b", "/y/a/b"},
		{"first of equals wins", []MountPoint{{"/x", "/"}, {"/y", "/"}}, "/a", "/x/a"},
		{"outside the namespace", []MountPoint{{"/cg", "/"}}, "/../x", ""},
		{"outside, mounted from the parent", []MountPoint{{"/cg", "/.."}}, "/../x", "/cg/x"},
		{"outside, mounted from too low", []MountPoint{{"/cg", "/.."}}, "/../../x", ""},
		{"inside, mounted from the parent", []MountPoint{{"/cg", "/.."}}, "/", ""},
		{"dots that aren't a step up", []MountPoint{{"/cg", "/"}}, "/..a/b..", "/cg/..a/b.."},
		{"no mounts", nil, "/", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, dir, ok := locate(tc.mounts, tc.own)
			if dir != tc.dir || ok != (tc.dir != "") {
				t.Errorf("got %q, %v, want %q", dir, ok, tc.dir)
			}
		})
	}
}

// FuzzLocate checks that no input leads out of the mount's directory.
func FuzzLocate(f *testing.F) {
	f.Add(hybrid, "0::/a/b\n")
	f.Add("41 31 0:38 /.. /cg rw shared:1 - cgroup2 none rw\n", "0::/../x\n")
	f.Add(`41 31 0:38 /a\040b /c\011d rw - cgroup2 none rw`, "0::/a b/../..")
	f.Fuzz(func(t *testing.T, mountinfo, cgroups string) {
		own, ok := parseOwn(cgroups)
		if !ok {
			return
		}
		m, dir, ok := locate(parseMounts(mountinfo), own)
		if !ok {
			return
		}
		base := path.Clean(m.Dir)
		if dir != base && !strings.HasPrefix(dir, strings.TrimSuffix(base, "/")+"/") {
			t.Errorf("%q is not below %q", dir, base)
		}
	})
}

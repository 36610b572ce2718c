// SPDX-License-Identifier: Apache-2.0

package cgroup2

import (
	"path"
	"slices"
	"strings"
)

// parseMounts returns the cgroup2 mounts listed in the text of a mountinfo
// file, in its order. Lines that don't have mountinfo's form are skipped.
func parseMounts(mountinfo string) []MountPoint {
	var mounts []MountPoint
	for line := range strings.Lines(mountinfo) {
		// id parent major:minor root dir options [optional ...] - fstype source superoptions
		fields := strings.Fields(line)
		if len(fields) < 7 {
			continue
		}
		sep := slices.Index(fields[6:], "-")
		if sep < 0 || 6+sep+1 >= len(fields) || fields[6+sep+1] != "cgroup2" {
			continue
		}
		root, dir := unescape(fields[3]), unescape(fields[4])
		if !path.IsAbs(root) || !path.IsAbs(dir) {
			continue
		}
		mounts = append(mounts, MountPoint{Dir: dir, Root: root})
	}
	return mounts
}

// parseOwn returns the unified hierarchy's path in the text of a
// /proc/<pid>/cgroup file, and whether there is one.
func parseOwn(cgroups string) (string, bool) {
	for line := range strings.Lines(cgroups) {
		own, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::")
		if ok && path.IsAbs(own) {
			return own, true
		}
	}
	return "", false
}

// locate picks the mount that shows the cgroup own and returns it with the
// directory at which own appears.
//
// Both own and the mounts' roots are relative to the reader's cgroup
// namespace and begin with "/.." where they lie outside of it. Such paths
// can be compared, but a step up can't be undone: the name of the cgroup above
// isn't known.
func locate(mounts []MountPoint, own string) (m MountPoint, dir string, ok bool) {
	for _, c := range mounts {
		rel, below := cutRoot(own, c.Root)
		if !below || slices.Contains(strings.Split(rel, "/"), "..") {
			continue
		}
		if !ok || len(c.Root) < len(m.Root) {
			m, dir, ok = c, path.Join(c.Dir, rel), true
		}
	}
	return m, dir, ok
}

// cutRoot returns own relative to root, and whether it is root or below it.
func cutRoot(own, root string) (string, bool) {
	if root == "/" {
		return strings.TrimPrefix(own, "/"), true
	}
	rel, ok := strings.CutPrefix(own, root)
	if !ok || rel != "" && rel[0] != '/' {
		return "", false
	}
	return strings.TrimPrefix(rel, "/"), true
}

// unescape decodes the octal escapes (\040 for a space) by which the kernel
// keeps white space and backslashes out of mountinfo's fields.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && isOctal(s[i+1], '3') && isOctal(s[i+2], '7') && isOctal(s[i+3], '7') {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func isOctal(c, highest byte) bool { return '0' <= c && c <= highest }

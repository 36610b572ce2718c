// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
)

func init() {
	children["letInSwapper"] = letInSwapper
}

// TestLetInGrantDirectories grants in directories in which, or in whose place, others
// can put something else.
func TestLetInGrantDirectories(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	lab := newGrantLab(t)
	mkdir := func(path string, mode uint32, uid int) string {
		t.Helper()
		path = filepath.Join(lab.dir, path)
		must(t, os.Mkdir(path, 0o755))
		must(t, unix.Chmod(path, mode))
		must(t, os.Chown(path, uid, 0))
		return path
	}
	mkdir("theirs", 0o755, nobody)
	mkdir("theirs/ours", 0o755, 0)
	mkdir("open", 0o777, 0)
	mkdir("open/ours", 0o755, 0)
	mkdir("group", 0o775, 0)
	mkdir("theirsticky", 0o1777, nobody)
	must(t, os.Symlink(lab.dir, filepath.Join(lab.dir, "last")))
	must(t, os.Symlink(lab.dir, filepath.Join(lab.dir, "lured")))
	must(t, os.Lchown(filepath.Join(lab.dir, "lured"), nobody, nobody))
	mkdir("real", 0o755, 0)
	for _, dir := range []string{"theirs", "theirs/ours", "open", "open/ours", "group", "theirsticky", "last", "lured/real"} {
		path := filepath.Join(lab.dir, dir, "rx")
		for _, err := range []error{
			lab.attachment.GrantReceiveMap(bpf.Grant{Path: path, UID: nobody}),
			lab.attachment.PinMaps(filepath.Dir(path)),
		} {
			if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ELOOP) {
				t.Errorf("%s: %v", dir, err)
			}
		}
		if left, _ := os.ReadDir(filepath.Dir(path)); dir != "last" && len(left) > 1 {
			t.Errorf("%s: left %v", dir, left)
		}
	}
	// Links of root's on the way are as good as what they lead to.
	for _, dir := range []string{"last/real", "real"} {
		path := filepath.Join(lab.dir, dir, "rx")
		must(t, lab.attachment.GrantReceiveMap(bpf.Grant{Path: path, UID: nobody}))
		must(t, bpf.RevokeReceiveMap(path))
	}
}

const swapEnv = "SOCKMETA_TEST_SWAP"

// TestLetInGrantRace grants in a sticky directory in which the grantee puts symbolic
// links in the place of all names that are its own: what they lead to stays as it is.
func TestLetInGrantRace(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	lab := newGrantLab(t)
	must(t, unix.Chmod(lab.dir, 0o1777))
	secret := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(secret, []byte("root's"), 0o600))
	done := make(chan []byte)
	go func() {
		out, err := testutil.RunChild(t, "letInSwapper", testutil.ChildOptions{
			UID: nobody, GID: nobody, Env: []string{grantEnv + "=" + lab.dir, swapEnv + "=" + secret},
		})
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		done <- out
	}()
	path := filepath.Join(lab.dir, "swapped")
	granted := 0
	for range 500 {
		// The grantee can keep itself from being granted it.
		if err := lab.attachment.GrantReceiveMap(bpf.Grant{Path: path, UID: nobody, GID: nobody}); err == nil {
			granted++
		}
		var st unix.Stat_t
		must(t, unix.Stat(secret, &st))
		if st.Uid != 0 || st.Mode&0o777 != 0o600 {
			t.Fatalf("the secret is %d's, mode %o", st.Uid, st.Mode&0o777)
		}
	}
	must(t, os.Mkdir(filepath.Join(lab.dir, "end"), 0o755))
	<-done
	if b, err := os.ReadFile(secret); err != nil || string(b) != "root's" {
		t.Errorf("the secret is %q, %v", b, err)
	}
	t.Logf("granted %d times of 500", granted)
}

func letInSwapper() error {
	dir, secret := os.Getenv(grantEnv), os.Getenv(swapEnv)
	for end := time.Now().Add(udpPatience); time.Now().Before(end); {
		names, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range names {
			if e.Name() == "end" {
				return nil
			}
			path := filepath.Join(dir, e.Name())
			if os.Remove(path) == nil {
				_ = os.Symlink(secret, path)
			}
		}
	}
	return nil
}

// TestLetInRevoke revokes what nobody has granted: it stays.
func TestLetInRevoke(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	lab := newGrantLab(t)
	plain := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(plain, nil, 0o600))
	link, dir := filepath.Join(lab.dir, "link"), filepath.Join(lab.dir, "dir")
	must(t, os.Symlink(lab.path, link))
	must(t, os.Mkdir(dir, 0o755))
	for _, path := range []string{plain, link, dir} {
		if err := bpf.RevokeReceiveMap(path); err == nil {
			t.Errorf("revoked %s", path)
		}
		if _, err := os.Lstat(path); err != nil {
			t.Error(err)
		}
	}
	must(t, bpf.RevokeReceiveMap(filepath.Join(lab.dir, "nothing")))
	must(t, bpf.RevokeReceiveMap(lab.path))
}

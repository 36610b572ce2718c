// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

func init() {
	children["grantHolder"] = grantHolder
	children["grantOutsider"] = func() error { return withLoopback(grantOutsider) }
	children["grantWriter"] = grantWriter
}

const (
	grantEnv   = "SOCKMETA_TEST_GRANT"
	grantGroup = 54321
)

// grantLab is an attachment whose map is granted to a group, in a directory that
// everybody can get to.
type grantLab struct {
	attachment *bpf.Attachment
	dir, path  string
}

func newGrantLab(t *testing.T) *grantLab {
	t.Helper()
	cg := testutil.EnterCgroup(t)
	a, err := bpf.Attach(bpf.Options{Cgroup: cg.Path()})
	must(t, err)
	t.Cleanup(func() { _ = a.Close() })
	// t.TempDir's parent is closed to others.
	dir, err := os.MkdirTemp("", "sockmeta")
	must(t, err)
	t.Cleanup(func() { _ = os.Remove(dir) })
	must(t, unix.Mount("bpf", dir, "bpf", 0, "mode=0755"))
	t.Cleanup(func() { _ = unix.Unmount(dir, 0) })
	lab := &grantLab{attachment: a, dir: dir, path: filepath.Join(dir, "rx")}
	must(t, a.GrantReceiveMap(bpf.Grant{Path: lab.path, GID: grantGroup}))
	return lab
}

// run runs a child function as nobody, in the group or not.
func (lab *grantLab) run(t *testing.T, name string, groups ...uint32) {
	t.Helper()
	out, err := testutil.RunChild(t, name, testutil.ChildOptions{
		UID: nobody, GID: nobody, Groups: groups, NoNewPrivs: true, Env: []string{grantEnv + "=" + lab.path},
	})
	if err != nil {
		t.Errorf("%s: %v\n%s", name, err, out)
	}
}

// TestGrant has processes without privileges read records from the map: those
// that it is granted to, and no others.
func TestGrant(t *testing.T) {
	testutil.RequireRoot(t)
	handleTier(t)
	testutil.Leaks(t)
	lab := newGrantLab(t)
	lab.run(t, "grantHolder", grantGroup)
	lab.run(t, "grantWriter", grantGroup)
	lab.run(t, "grantOutsider")

	// Granted anew, to others, and to nobody.
	must(t, lab.attachment.GrantReceiveMap(bpf.Grant{Path: lab.path, UID: nobody}))
	lab.run(t, "grantHolder")
	must(t, lab.attachment.GrantReceiveMap(bpf.Grant{Path: lab.path}))
	lab.run(t, "grantOutsider", grantGroup)
	must(t, bpf.RevokeReceiveMap(lab.path))
	lab.run(t, "grantOutsider", grantGroup)
	if left, err := filepath.Glob(lab.path + "*"); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// granted makes sockets that name the map.
func granted() (listener, dialer *sockmeta.UDPConn, err error) {
	lc := sockmeta.ListenConfig{Require: true, ReceiveMap: os.Getenv(grantEnv)}
	pc, err := lc.ListenPacket(context.Background(), "udp4", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	d := sockmeta.Dialer{Require: true, ReceiveMap: os.Getenv(grantEnv)}
	c, err := d.Dial("udp4", pc.LocalAddr().String())
	if err != nil {
		return nil, nil, err
	}
	return pc.(*sockmeta.UDPConn), c.(*sockmeta.UDPConn), pc.SetDeadline(time.Now().Add(udpPatience))
}

// exchangeHere sends a datagram from one to the other.
func exchangeHere(to, from *sockmeta.UDPConn) error {
	if _, err := from.Write([]byte("payload")); err != nil {
		return err
	}
	var md sockmeta.Metadata
	if _, _, err := to.ReadMetadata(make([]byte, 16), &md); err != nil {
		return err
	}
	return wantLoopback(&md)
}

func grantHolder() error {
	to, from, err := granted()
	if err != nil {
		return err
	}
	for _, c := range []*sockmeta.UDPConn{to, from} {
		if s := c.Support(); !s.Mapped || s.Unmapped != nil {
			return fmt.Errorf("support is %v, %w", s, s.Unmapped)
		}
	}
	if err := exchangeHere(to, from); err != nil {
		return err
	}
	// Its own record by the handle, and only as that socket's.
	if _, err := from.Write([]byte("payload")); err != nil {
		return err
	}
	return onSocket(to, func(fd int) error {
		handle, err := waitHandle(fd)
		if err != nil {
			return err
		}
		info, err := bpf.SocketInfo(fd)
		if err != nil {
			return err
		}
		id, err := bpf.SocketID(fd, info)
		if err != nil {
			return err
		}
		slots, err := bpf.FindSlots(info, "")
		if err != nil {
			return err
		}
		var md sockmeta.Metadata
		if _, err := slots.Read(handle, id+1, md.Record()); err != bpf.ErrOverrun {
			return fmt.Errorf("as another socket's: %v, %w", md, err)
		}
		if _, err := slots.Read(handle, id, md.Record()); err != nil {
			return err
		}
		return wantLoopback(&md)
	})
}

// waitHandle is readHandle of a datagram that is on its way.
func waitHandle(fd int) (handle uint64, err error) {
	for end := time.Now().Add(udpPatience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if handle, err = readHandle(fd); err != unix.EAGAIN {
			break
		}
	}
	return handle, err
}

// grantWriter tries to change what others read.
func grantWriter() error {
	m, err := ebpf.LoadPinnedMap(os.Getenv(grantEnv), nil)
	if err != nil {
		return err
	}
	defer m.Close()
	if err := m.Put(uint32(0), make([]byte, m.ValueSize())); !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("writing it: %w", err)
	}
	for _, prot := range []int{unix.PROT_WRITE, unix.PROT_READ | unix.PROT_WRITE} {
		if _, err := unix.Mmap(m.FD(), 0, os.Getpagesize(), prot, unix.MAP_SHARED); err != unix.EPERM {
			return fmt.Errorf("mapping it for writing: %w", err)
		}
	}
	mem, err := unix.Mmap(m.FD(), 0, os.Getpagesize(), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	if err := unix.Mprotect(mem, unix.PROT_READ|unix.PROT_WRITE); err != unix.EACCES {
		return fmt.Errorf("making the mapping writable: %w", err)
	}
	for _, change := range []func() error{
		func() error { return os.Chmod(os.Getenv(grantEnv), 0o666) },
		func() error { return os.Remove(os.Getenv(grantEnv)) },
		func() error { return pinAnew(m, os.Getenv(grantEnv)+"2") },
	} {
		if err := change(); !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
			return fmt.Errorf("changing the grant: %w", err)
		}
	}
	return nil
}

func pinAnew(m *ebpf.Map, path string) error {
	clone, err := m.Clone()
	if err != nil {
		return err
	}
	defer clone.Close()
	return clone.Pin(path)
}

// grantOutsider names the map, and has to ask the kernel.
func grantOutsider() error {
	if _, err := ebpf.LoadPinnedMap(os.Getenv(grantEnv), nil); !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("opening the map: %w", err)
	}
	to, from, err := granted()
	if err != nil {
		return err
	}
	if err := checkSupport(to, false); err != nil {
		return err
	}
	if s := to.Support(); !native() && (!errors.Is(s.Unmapped, sockmeta.ErrNotSupported) ||
		!errors.Is(s.Unmapped, unix.EACCES) && !errors.Is(s.Unmapped, unix.ENOENT) ||
		!strings.Contains(s.Unmapped.Error(), os.Getenv(grantEnv))) {
		return fmt.Errorf("support is %v, %w", s, s.Unmapped)
	}
	return exchangeHere(to, from)
}

// TestGrantOfOthers has pins at the path that are not the map of the socket's
// attachment, or that a grant must not replace.
func TestGrantOfOthers(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	lab := newGrantLab(t)
	other, err := bpf.Attach(bpf.Options{Cgroup: testutil.Cgroup(t).Path(), SlotsPerCPU: 16})
	must(t, err)
	defer other.Close()
	must(t, other.GrantReceiveMap(bpf.Grant{Path: lab.path, UID: nobody}))

	forged, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "sockmeta_rx", Type: ebpf.Array, KeySize: 4, ValueSize: 384, MaxEntries: 16, Flags: unix.BPF_F_MMAPABLE,
	})
	must(t, err)
	defer forged.Close()
	plain := filepath.Join(lab.dir, "plain")
	must(t, forged.Pin(plain))
	foreign, err := ebpf.NewMap(&ebpf.MapSpec{Name: "foreign", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	must(t, err)
	defer foreign.Close()
	theirs := filepath.Join(lab.dir, "theirs")
	must(t, foreign.Pin(theirs))

	c, _, err := loopback()
	must(t, err)
	defer c.Close()
	var info bpf.Info
	withFD(t, c, func(fd int) (err error) {
		info, err = bpf.SocketInfo(fd)
		return err
	})
	// This process has the map anyhow: as one that has not.
	info.Instance++
	for path, why := range map[string]string{
		lab.path:       "another attachment's",
		plain:          "another attachment's",
		theirs:         "another attachment's",
		lab.dir + "/-": "nobody has pinned it",
	} {
		if s, err := bpf.FindSlots(info, path); s != nil || !errors.Is(err, bpf.ErrNotSupported) || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v, want %q", path, err, why)
		}
	}
	// A map that its programs use, but anybody may write.
	mi, err := forged.Info()
	must(t, err)
	id, _ := mi.ID()
	info.RxMapID = uint32(id)
	if s, err := bpf.FindSlots(info, plain); s != nil || !errors.Is(err, bpf.ErrNotSupported) || !strings.Contains(err.Error(), "not frozen") {
		t.Errorf("a map that is not frozen: %v", err)
	}

	for _, path := range []string{theirs, lab.dir, lab.dir + "/a.b", filepath.Join(t.TempDir(), "rx"), "/dev/null"} {
		if err := lab.attachment.GrantReceiveMap(bpf.Grant{Path: path}); err == nil {
			t.Errorf("granted at %s", path)
		}
	}
	m, err := ebpf.LoadPinnedMap(theirs, nil)
	must(t, err)
	must(t, m.Close())
	must(t, lab.attachment.Close())
	if err := lab.attachment.GrantReceiveMap(bpf.Grant{Path: lab.path}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

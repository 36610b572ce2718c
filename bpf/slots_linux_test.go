// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/internal/abi"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
)

func TestMain(m *testing.M) { testutil.Main(m, nil) }

// attachHere attaches to a cgroup of the test's own.
func attachHere(tb testing.TB, opts Options) *Attachment {
	tb.Helper()
	testutil.RequireRoot(tb)
	opts.Cgroup = testutil.Cgroup(tb).Path()
	a, err := Attach(opts)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = a.Close() })
	return a
}

// FuzzSlotsRead asks for any handle: there is a clear error and no record, for
// no packet has come.
func FuzzSlotsRead(f *testing.F) {
	f.Add(uint64(0))
	f.Add(^uint64(0))
	f.Add(abi.HandleBit)
	f.Add(abi.HandleBit | abi.IndexMask)
	f.Add(uint64(1))
	a := attachHere(f, Options{SlotsPerCPU: 16})
	f.Fuzz(func(t *testing.T, handle uint64) {
		var rec abi.Record
		_, err := a.Slots().Read(handle, 1, &rec)
		if !errors.Is(err, ErrOverrun) && !errors.Is(err, ErrNoMetadata) {
			t.Errorf("handle %#x: %v", handle, err)
		}
		a.Slots().Touch(handle)
		if _, again := a.Slots().Timestamping(handle, 1); again != err {
			t.Errorf("handle %#x: %v, Timestamping says %v", handle, err, again)
		}
	})
}

// TestMapsAreFrozen has nobody write what applications read, not even root.
func TestMapsAreFrozen(t *testing.T) {
	a := attachHere(t, Options{})
	maps, err := findMaps(a)
	if err != nil {
		t.Fatal(err)
	}
	defer closeMaps(maps)
	for _, name := range []string{slotsName, instanceName} {
		m := maps[name]
		if err := m.Put(uint32(0), make([]byte, m.ValueSize())); !errors.Is(err, unix.EPERM) {
			t.Errorf("%s: writing it: %v, want EPERM", name, err)
		}
	}
	rx := maps[slotsName]
	if mem, err := unix.Mmap(rx.FD(), 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != unix.EPERM {
		_ = unix.Munmap(mem)
		t.Errorf("mapping the slots for writing: %v, want EPERM", err)
	}
	mem, err := unix.Mmap(rx.FD(), 0, os.Getpagesize(), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	if err := unix.Mprotect(mem, unix.PROT_READ|unix.PROT_WRITE); err != unix.EACCES {
		t.Errorf("making the mapping writable: %v, want EACCES", err)
	}
}

func TestOptions(t *testing.T) {
	for _, n := range []int{-1, 3, 1 << 24} {
		if a, err := Attach(Options{SlotsPerCPU: n}); err == nil {
			_ = a.Close()
			t.Errorf("%d slots a CPU are taken", n)
		}
	}
	testutil.RequireRoot(t)
	if _, err := Attach(Options{Cgroup: "/nonexistent"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a cgroup that is not: %v", err)
	}
	if _, err := Attach(Options{Cgroup: t.TempDir()}); err == nil {
		t.Error("attached to a directory that is no cgroup")
	}
	if _, err := AttachProducer("nonexistent", ProducerOptions{}); err == nil {
		t.Error("attached a producer to an interface that is not")
	}
}

// TestPrivate attaches beside what is there, and leaves nothing.
func TestPrivate(t *testing.T) {
	a := attachHere(t, Options{})
	b, err := Attach(Options{Cgroup: a.Cgroup()})
	if err != nil {
		t.Fatal(err)
	}
	if !b.Shared() || b.Info() != a.Info() {
		t.Errorf("shared %v, %v and %v", b.Shared(), a.Info(), b.Info())
	}
	c, err := Attach(Options{Cgroup: a.Cgroup(), Private: true})
	if err != nil {
		t.Fatal(err)
	}
	if c.Shared() || c.Info().Instance == a.Info().Instance {
		t.Errorf("shared %v, %v and %v", c.Shared(), a.Info(), c.Info())
	}
	for _, x := range []*Attachment{a, b, c} {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	}
	dir, err := os.Open(a.Cgroup())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if x, err := join(dir, nil); !errors.Is(err, errNothingToJoin) {
		t.Errorf("joined %v, %v after the last was closed", x, err)
	}
}

// findMaps opens the maps that the attachment's getsockopt program uses.
func findMaps(a *Attachment) (map[string]*ebpf.Map, error) {
	dir, err := os.Open(a.Cgroup())
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	attached, err := link.QueryPrograms(link.QueryOptions{
		Target: int(dir.Fd()),
		Attach: ebpf.AttachCGroupGetsockopt,
	})
	if err != nil {
		return nil, err
	}
	return mapsOfProgram(attached.Programs[0].ID, kernelName(getsockoptProgram))
}

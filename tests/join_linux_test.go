// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// TestJoin takes what is attached with the options that it has, and lets it live on.
func TestJoin(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	cg := testutil.Cgroup(t)
	join := func(t *testing.T) *bpf.Attachment {
		t.Helper()
		a, err := bpf.Join(cg.Path())
		must(t, err)
		t.Cleanup(func() { _ = a.Close() })
		if !a.Shared() {
			t.Error("what was joined is not shared")
		}
		return a
	}
	nothing := func(t *testing.T) {
		t.Helper()
		a, err := bpf.Join(cg.Path())
		if err == nil {
			must(t, a.Close())
		}
		if !errors.Is(err, bpf.ErrNotAttached) || !strings.Contains(err.Error(), cg.Path()) {
			t.Errorf("%v, want ErrNotAttached and the cgroup", err)
		}
	}
	nothing(t)

	asked := bpf.Options{
		Cgroup: cg.Path(), SlotsPerCPU: 64, MaxSockets: 90, MaxSocketsPerUser: 30,
		Policy: &bpf.Policy{MarkMask: 0xf0, LocalKeys: []uint8{16, 70, 254}},
	}
	first, err := bpf.Attach(asked)
	must(t, err)
	t.Cleanup(func() { _ = first.Close() })
	for name, a := range map[string]*bpf.Attachment{"attached": first, "joined": join(t)} {
		opts, err := a.Options()
		if err != nil || !reflect.DeepEqual(opts, asked) {
			t.Errorf("%s: %+v, %v, want %+v", name, opts, err, asked)
		}
		if p, err := a.Policy(); err != nil || !reflect.DeepEqual(p, *asked.Policy) {
			t.Errorf("%s: %+v, %v, want %+v", name, p, err, *asked.Policy)
		}
		again, err := bpf.Attach(opts)
		must(t, err)
		if !again.Shared() || again.Info() != first.Info() {
			t.Errorf("%s: Attach with its options shares nothing", name)
		}
		must(t, again.Close())
	}

	second := join(t)
	links := linksAt(t, cg)
	must(t, first.Close())
	if got := linksAt(t, cg); !slices.Equal(got, links) {
		t.Errorf("links %d, %d while the first was open", got, links)
	}
	third := join(t)
	must(t, second.Close())
	must(t, third.Close())
}

// TestJoinNothing joins what is gone, and programs that some links keep.
func TestJoinNothing(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	cg := testutil.Cgroup(t)
	a, err := bpf.Attach(bpf.Options{Cgroup: cg.Path()})
	must(t, err)
	t.Cleanup(func() { _ = a.Close() })
	ids := linksAt(t, cg)
	kept := make([]link.Link, len(ids))
	for i, id := range ids {
		kept[i], err = link.NewFromID(id)
		must(t, err)
		defer kept[i].Close()
	}
	must(t, a.Close())
	for i, l := range kept {
		must(t, l.Close())
		if j, err := bpf.Join(cg.Path()); !errors.Is(err, bpf.ErrNotAttached) {
			t.Errorf("without the first %d of %d links: %v", i+1, len(kept), err)
			if err == nil {
				must(t, j.Close())
			}
		}
	}
}

// linksAt returns the links to a cgroup, in the order in which they were made.
func linksAt(t *testing.T, cg *netlab.Cgroup) (ids []link.ID) {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Stat(cg.Path(), &st))
	it := new(link.Iterator)
	defer it.Close()
	for it.Next() {
		info, err := it.Link.Info()
		must(t, err)
		if c := info.Cgroup(); c != nil && c.CgroupId == st.Ino {
			ids = append(ids, info.ID)
		}
	}
	must(t, it.Err())
	slices.Sort(ids)
	return ids
}

// TestSendZeroPolicy has the zero policy allow nothing, and the packet leave.
func TestSendZeroPolicy(t *testing.T) {
	lab := newTxLab(t, bpf.Policy{})
	c := lab.udp(t, "udp4", nil)
	b, md := lab.datagram(t)
	md.SetMark(1)
	md.SetPriority(1)
	md.SetLaunchTime(monotonic(t) + uint64(time.Hour))
	n, err := c.WriteMetadata(b, md, lab.to4())
	if n != len(b) || !errors.Is(err, sockmeta.ErrRefused) {
		t.Errorf("%d, %v, want %d bytes and ErrRefused", n, err, len(b))
	}
	lab.arrives(t, b)
	tc, cgroup := lab.wire.counts(t)
	if tc.LastMark != 0 || tc.LastPriority != 0 || cgroup.LastTstamp != 0 {
		t.Errorf("mark %d, priority %d, time %d", tc.LastMark, tc.LastPriority, cgroup.LastTstamp)
	}
	want := bpf.Counts{Sent: 1, MarkRefused: 1, PriorityRefused: 1, LaunchRefused: 1}
	if got, err := lab.attachment.Counts(); err != nil || got != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	b, md = lab.datagram(t)
	md.SetPriority(0)
	if _, err := c.WriteMetadata(b, md, lab.to4()); err != nil {
		t.Errorf("priority 0: %v", err)
	}
}

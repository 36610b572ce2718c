// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/internal/xdpmeta"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// probeLab is what probes and trials may use: a pair of hosts, and the cgroup that
// the test is in.
type probeLab struct {
	*netlab.Pair
	cgroup *netlab.Cgroup
}

// TestProbes asks the product whether the kernel has what a feature needs, and finds
// out in another way: by trying something that is not the product's, or by the
// release that has it first. To differ is wrong in either direction: a feature that
// could be had and is refused, and one that is promised and cannot be had.
func TestProbes(t *testing.T) {
	checkProbes(t, []probe{
		{"Attach", func(t *testing.T, lab *probeLab) error {
			a, err := bpf.Attach(bpf.Options{Cgroup: lab.cgroup.Path(), Private: true})
			return closing(t, a, err)
		}, tryCgroupLink},
		{"AttachLocal", func(t *testing.T, lab *probeLab) error {
			a, err := bpf.Attach(bpf.Options{Cgroup: lab.cgroup.Path(), Private: true})
			must(t, err)
			defer a.Close()
			return lab.Server.Do(func() error {
				l, err := a.AttachLocal("lo")
				return closing(t, l, err)
			})
		}, since(6, 11)},
		{"AttachProducer", func(t *testing.T, lab *probeLab) error {
			return lab.Server.Do(func() error {
				p, err := bpf.AttachProducer(lab.ServerIf, bpf.ProducerOptions{})
				return closing(t, p, err)
			})
		}, tryArea(32)},
		{"Producer.Timed", func(t *testing.T, lab *probeLab) error {
			return lab.Server.Do(func() error {
				p, err := bpf.AttachProducer(lab.ServerIf, bpf.ProducerOptions{})
				must(t, err)
				defer p.Close()
				return whether(p.Timed(), nil)
			})
		}, tryArea(48)},
		{"area of 32 bytes", fits(32), tryArea(32)},
		{"area of 36 bytes", fits(36), tryArea(36)},
		{"area of 216 bytes", fits(216), tryArea(216)},
		{"bpf_cast_to_kern_ctx", hasFunc("bpf_cast_to_kern_ctx"), since(6, 2)},
		{"bpf_rdonly_cast", hasFunc("bpf_rdonly_cast"), since(6, 2)},
		{"Support, handle", func(t *testing.T, lab *probeLab) error {
			return tierAtLeast(t, lab, sockmeta.TierHandle, bpf.Options{})
		}, tryCgroupLink},
		{"Support, native", func(t *testing.T, lab *probeLab) error {
			return tierAtLeast(t, lab, sockmeta.TierNative, bpf.Options{})
		}, func(*testing.T, *probeLab) error { return kernelFunc("bpf_msg_put_cmsg") }},
	})
}

// TestProbesTracing is TestProbes for raw control messages, which sockets have from
// the first attachment on or not at all.
func TestProbesTracing(t *testing.T) {
	trial := func(*testing.T, *probeLab) error { return noTracing() }
	checkProbes(t, []probe{
		{"Options.Tracing", func(t *testing.T, lab *probeLab) error {
			a, err := bpf.Attach(bpf.Options{Cgroup: lab.cgroup.Path(), Private: true, Tracing: true})
			return closing(t, a, err)
		}, trial},
		{"Support, tracing", func(t *testing.T, lab *probeLab) error {
			return tierAtLeast(t, lab, sockmeta.TierTracing, bpf.Options{Tracing: noTracing() == nil})
		}, trial},
	})
}

type probe struct {
	name string
	// probe returns the product's opinion: nil, or an error that is
	// ErrNotSupported. trial returns nil where the kernel has it.
	probe, trial func(*testing.T, *probeLab) error
}

func checkProbes(t *testing.T, probes []probe) {
	t.Helper()
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	lab := &probeLab{testutil.Pair(t), testutil.EnterCgroup(t)}
	for _, tt := range probes {
		t.Run(tt.name, func(t *testing.T) {
			probe, trial := tt.probe(t, lab), tt.trial(t, lab)
			switch {
			case probe != nil && !errors.Is(probe, sockmeta.ErrNotSupported):
				t.Errorf("the probe's error is not ErrNotSupported: %v", probe)
			case probe == nil && trial != nil:
				t.Errorf("the product says it can be had, the kernel: %v", trial)
			case probe != nil && trial == nil:
				t.Errorf("the kernel has it, but the product says: %v", probe)
			}
		})
	}
}

// closing closes what was attached, if it was.
func closing(t *testing.T, a interface{ Close() error }, err error) error {
	t.Helper()
	if err == nil {
		must(t, a.Close())
	}
	return err
}

// whether returns what a probe says that answers yes or no.
func whether(ok bool, err error) error {
	if err == nil && !ok {
		return sockmeta.ErrNotSupported
	}
	return err
}

func fits(size int) func(*testing.T, *probeLab) error {
	return func(*testing.T, *probeLab) error { return whether(xdpmeta.Fits(size)) }
}

// hasFunc asks as the loader does for the functions that programs may do without.
func hasFunc(name string) func(*testing.T, *probeLab) error {
	return func(*testing.T, *probeLab) error {
		if err := kernelFunc(name); err != nil {
			return fmt.Errorf("%w: %w", sockmeta.ErrNotSupported, err)
		}
		return nil
	}
}

func kernelFunc(name string) error {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return err
	}
	var f *btf.Func
	err = spec.TypeByName(name, &f)
	if errors.Is(err, btf.ErrNotFound) && native() {
		if spec, err = btf.LoadKernelModuleSpec(kmodName); err == nil {
			err = spec.TypeByName(name, &f)
		}
	}
	return err
}

// tierAtLeast asks a socket for its tier, and has it show that there is metadata
// where it says so.
func tierAtLeast(t *testing.T, lab *probeLab, want sockmeta.Tier, opts bpf.Options) error {
	t.Helper()
	a, err := bpf.Attach(opts)
	if err != nil {
		return err
	}
	defer a.Close()
	c := listenUDP(t, lab.Server, "udp4", udpAddr(lab.ServerAddr4, 0))
	support := c.Support()
	must1(t)(dialUDP(t, lab.Client, nil, c.LocalAddr().(*net.UDPAddr)).Write([]byte("probe")))
	must(t, c.SetReadDeadline(time.Now().Add(udpPatience)))
	var md sockmeta.Metadata
	b := make([]byte, 16)
	_, _, err = c.ReadMetadata(b, &md)
	if _, ok := md.IfIndex(); (err == nil && ok) != (support.Tier != sockmeta.TierNone) {
		t.Errorf("%v, and reading gives %v", support, err)
	}
	if support.Tier >= want {
		return nil
	}
	for _, m := range support.Missing {
		if m.Tier == want {
			return m.Err
		}
	}
	t.Errorf("%v, and nothing about %v is missing", support, want)
	return sockmeta.ErrNotSupported
}

// tryCgroupLink attaches a program that may read the kernel's memory.
func tryCgroupLink(t *testing.T, lab *probeLab) error {
	t.Helper()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.CGroupSKB, AttachType: ebpf.AttachCGroupInetIngress,
		License: "Dual BSD/GPL",
		Instructions: asm.Instructions{
			asm.Mov.Reg(asm.R1, asm.RFP),
			asm.Add.Imm(asm.R1, -8),
			asm.Mov.Imm(asm.R2, 8),
			asm.Mov.Imm(asm.R3, 0),
			asm.FnProbeReadKernel.Call(),
			asm.Mov.Imm(asm.R0, 1),
			asm.Return(),
		},
	})
	if err != nil {
		return err
	}
	defer prog.Close()
	l, err := link.AttachCgroup(link.CgroupOptions{
		Path: lab.cgroup.Path(), Attach: ebpf.AttachCGroupInetIngress, Program: prog,
	})
	if err != nil {
		return err
	}
	return l.Close()
}

// tryArea has a packet arrive behind an area of a size, put there by a program that
// is not the product's.
func tryArea(size int) func(*testing.T, *probeLab) error {
	return func(t *testing.T, lab *probeLab) error {
		t.Helper()
		var err error
		t.Run("trial", func(t *testing.T) {
			area := anchored(cmsg.FormatRaw, bytes.Repeat([]byte{7}, size-cmsg.AnchorLen-sealSize(t))...)
			attachArea(t, lab.Server, lab.ServerIf, area)
			md, readErr := exchange(t, lab.Pair, lab.ServerAddr4)
			must(t, readErr)
			if got := md.Raw(); !bytes.Equal(got, area) {
				err = fmt.Errorf("of an area of %d bytes %d arrive", size, len(got))
			}
		})
		return err
	}
}

// since is for what nothing but the product shows: the release that has it first.
func since(major, minor int) func(*testing.T, *probeLab) error {
	return func(t *testing.T, _ *probeLab) error {
		t.Helper()
		var uts unix.Utsname
		must(t, unix.Uname(&uts))
		release := unix.ByteSliceToString(uts.Release[:])
		var a, b int
		if _, err := fmt.Sscanf(release, "%d.%d", &a, &b); err != nil {
			t.Fatalf("release %q: %v", release, err)
		}
		if a < major || a == major && b < minor {
			return fmt.Errorf("Linux %d.%d has it first, this is %s", major, minor, release)
		}
		return nil
	}
}

// TestLargeAreas has an area arrive that is as long as any, where the kernel lets XDP
// programs have more than the 32 bytes that there were at first.
func TestLargeAreas(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	if ok, err := xdpmeta.Fits(36); err != nil {
		t.Fatal(err)
	} else if !ok {
		t.Skip("the kernel allows areas of 32 bytes")
	}
	p := testutil.Pair(t)
	testutil.EnterCgroup(t)
	area := anchored(cmsg.FormatRaw, bytes.Repeat([]byte{7}, cmsg.AreaMax-cmsg.AnchorLen-sealSize(t))...)
	attachArea(t, p.Server, p.ServerIf, area)
	md, err := exchangeFrame(t, p)
	must(t, err)
	if got := md.Raw(); !bytes.Equal(got, area) {
		t.Errorf("area is %x, want %x", got, area)
	}
}

// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/testprog"
)

// What TestNativeFunctions has programs put, see testprog/c/kmod.bpf.c.
const (
	kmodType  = 0x7357
	kmodValue = 0x1122334455667788
)

// refusals of a kernel function that is asked for what it does not do.
var kmodPutErrors = testprog.KmodKmodSeen{
	Rights: -int64(unix.EINVAL), Ip: -int64(unix.EINVAL), Negative: -int64(unix.EINVAL),
}

// TestNativeFunctions has programs call the kernel's functions with all that they are
// to refuse.
func TestNativeFunctions(t *testing.T) {
	lab := newNativeLab(t)
	area := sealed(t, anchored(cmsg.FormatTLV, 16, 2, 1, 2))
	attachBytes(t, lab.Server, lab.ServerIf, area)
	spec, err := testprog.LoadKmod()
	must(t, err)
	must(t, spec.Variables["type"].Set(uint32(kmodType)))
	for name := range spec.Programs {
		if !ebpfLoads(name) {
			delete(spec.Programs, name)
		}
	}
	var objs struct {
		testprog.KmodVariables
		Recv    *ebpf.Program `ebpf:"kmod_recv"`
		Connect *ebpf.Program `ebpf:"kmod_connect"`
		Send    *ebpf.Program `ebpf:"kmod_send"`
		LSM     *ebpf.Program `ebpf:"kmod_lsm"`
	}
	must(t, spec.LoadAndAssign(&objs, nil))
	for typ, prog := range map[ebpf.AttachType]*ebpf.Program{
		ebpf.AttachCGroupUDP4Recvmsg: objs.Recv, ebpf.AttachCGroupInet4Connect: objs.Connect,
		ebpf.AttachCGroupUDP4Sendmsg: objs.Send,
	} {
		l, err := link.AttachCgroup(link.CgroupOptions{Path: lab.a.Cgroup(), Attach: typ, Program: prog})
		must(t, err)
		defer l.Close()
		defer prog.Close()
	}
	l, err := link.AttachLSM(link.LSMOptions{Program: objs.LSM})
	must(t, err)
	defer l.Close()
	defer objs.LSM.Close()
	seen := func(v *ebpf.Variable) (s testprog.KmodKmodSeen) {
		t.Helper()
		must(t, v.Get(&s))
		return s
	}

	// Receiving: our own record, and theirs behind it.
	k := udpKinds(lab.Pair)[0]
	fd := lab.open(k)
	client := k.dial(t, lab.Pair)
	send(t, client, "payload")
	r, err := receiveFrom(fd, true, 0)
	must(t, err)
	want := kmodPutErrors
	want.Runs, want.Meta, want.MetaShort = 1, int64(len(area)), -int64(unix.E2BIG)
	if got := seen(objs.Received); got != want {
		t.Errorf("recvmsg: %+v, want %+v", got, want)
	}
	var levels []int32
	for m := range cmsg.All(r.oob) {
		levels = append(levels, m.Level)
	}
	b, ok := cmsg.Find(r.oob, cmsg.SOL_BPF, kmodType)
	if !ok || len(b) != 8 || idOf(b) != kmodValue || len(levels) != 2 || levels[0] != cmsg.SOL_BPF || levels[1] != cmsg.SOL_BPF {
		t.Errorf("control messages %x at levels %v", r.oob, levels)
	}
	// What has nothing to be acquired: no control messages are taken.
	send(t, client, "payload")
	_, _, err = unix.Recvfrom(fd, make([]byte, 64), 0)
	must(t, err)
	if got := seen(objs.Received); got.Runs != 2 || got.NoMsg != 1 {
		t.Errorf("recvfrom: %+v", got)
	}

	// Sending, by a socket that is not connected: it runs the cgroup's programs.
	must(t, unix.Connect(fd, socketAddr(unix.AF_INET, netip.AddrPortFrom(k.client, clientPort))))
	if got := seen(objs.Connected); got.Runs == 0 || got.NoMsg != 1 {
		t.Errorf("connect: %+v", got)
	}
	payload := binary.NativeEndian.AppendUint64(nil, 42)
	payload = append(payload, 1, 2, 3, 4, 5)
	oob := cmsg.Append(filler(3), cmsg.SOL_BPF, kmodType, payload)
	must(t, unix.Sendmsg(fd, []byte("payload"), oob, nil, 0))
	want = testprog.KmodKmodSeen{
		Runs: 1, Rights: -int64(unix.EINVAL), Ip: -int64(unix.EINVAL), Negative: -int64(unix.EINVAL), Good: -int64(unix.EOPNOTSUPP),
		Messages: 4, Len: uint64(cmsg.Len(len(payload))), Copied: 8, CopiedBehind: -int64(unix.E2BIG), First: 42, InPlace: 42, NoSkb: 1,
	}
	if got := seen(objs.Sent); got != want {
		t.Errorf("sendmsg: %+v, want %+v", got, want)
	}
	want.NoSkb = 0
	if got := seen(objs.Lsm); got != want {
		t.Errorf("LSM: %+v, want %+v", got, want)
	}
	// Without control messages there is nothing to acquire.
	must(t, unix.Sendto(fd, []byte("payload"), 0, socketAddr(unix.AF_INET, netip.AddrPortFrom(k.client, clientPort))))
	if got := seen(objs.Sent); got.Runs != 2 || got.NoMsg != 1 {
		t.Errorf("sendto: %+v", got)
	}
	// LSM programs see a walk end at what cannot be, before the kernel fails the call.
	forged := cmsg.Append(bytes.Clone(oob), cmsg.SOL_BPF, kmodType, nil)
	binary.NativeEndian.PutUint64(forged[len(oob):], 1<<40)
	if err := unix.Sendmsg(fd, []byte("payload"), forged, nil, 0); err != unix.EINVAL {
		t.Errorf("sent a forged message: %v", err)
	}
	if got := seen(objs.Lsm); got.Messages != 4 || got.Runs != 2 {
		t.Errorf("LSM, forged: %+v", got)
	}
}

// kmodRefused are programs that the verifier is to refuse, and what it says, in its
// words of different kernels.
var kmodRefused = map[string]*regexp.Regexp{
	"kmod_keeps":         regexp.MustCompile(`reference leak|Unreleased reference`),
	"kmod_uses_released": regexp.MustCompile(`must point to scalar|expected kernel object type`),
	"kmod_writes":        regexp.MustCompile(`only read is supported`),
	"kmod_sleeps":        regexp.MustCompile(`sleepable`),
	"kmod_reads_too_far": regexp.MustCompile(`invalid access|outside of the allowed memory range`),
	"kmod_forges":        regexp.MustCompile(`R1 must be`),
}

func ebpfLoads(name string) bool {
	_, refused := kmodRefused[name]
	return !refused
}

// TestNativeVerifier has the kernel refuse programs that would do harm.
func TestNativeVerifier(t *testing.T) {
	newNativeLab(t)
	for name, why := range kmodRefused {
		t.Run(name, func(t *testing.T) {
			spec, err := testprog.LoadKmod()
			must(t, err)
			for other := range spec.Programs {
				if other != name {
					delete(spec.Programs, other)
				}
			}
			c, err := ebpf.NewCollection(spec)
			if err == nil {
				c.Close()
				t.Fatal("loaded")
			}
			var refusal *ebpf.VerifierError
			if !errors.As(err, &refusal) || !why.MatchString(strings.Join(refusal.Log, "\n")) {
				t.Errorf("%v\n%s", err, strings.Join(refusal.Log[max(0, len(refusal.Log)-8):], "\n"))
			}
		})
	}
}

// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"errors"
	"net"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testprog"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
)

// loadHeader loads the programs that are written with sockmeta.h.
func loadHeader(t *testing.T) (*testprog.HeaderObjects, func() [8]int64) {
	t.Helper()
	objs := new(testprog.HeaderObjects)
	spec, err := testprog.Prepared(testprog.LoadHeader())
	must(t, err)
	must(t, spec.LoadAndAssign(objs, nil))
	t.Cleanup(func() { _ = objs.Close() })
	return objs, func() (results [8]int64) {
		t.Helper()
		must(t, objs.Results.Get(&results))
		return results
	}
}

// requireArea skips a test that has areas of so many bytes where the kernel allows
// less.
func requireArea(t *testing.T, size int) {
	t.Helper()
	testutil.RequireRoot(t)
	most, err := areaMax()
	must(t, err)
	if most < size {
		t.Skipf("the kernel allows areas of %d bytes", most)
	}
}

func TestHeaderPut(t *testing.T) {
	requireArea(t, 56)
	p := testutil.Pair(t)
	testutil.EnterCgroup(t)
	objs, results := loadHeader(t)
	attachXDP(t, p.Server, p.ServerIf, objs.PutValues)
	md, err := exchange(t, p, p.ServerAddr4)
	must(t, err)

	if want := [8]int64{6: -int64(unix.EEXIST)}; results() != want {
		t.Errorf("results are %v, want %v", results(), want)
	}
	if md.Flags() != 0 || md.Format() != cmsg.FormatTLV || md.Err() != nil {
		t.Errorf("flags %v, format %v, error %v", md.Flags(), md.Format(), md.Err())
	}
	// Put last, seen first.
	if v, ok := md.Uint8(16); !ok || v != 1 {
		t.Errorf("key 16 is %d, %v", v, ok)
	}
	if v, ok := md.Uint16(17); !ok || v != 0x0202 {
		t.Errorf("key 17 is %#x, %v", v, ok)
	}
	if v, ok := md.Bytes(18); !ok || !bytes.Equal(v, bytes.Repeat([]byte{5}, 5)) {
		t.Errorf("key 18 is %x, %v", v, ok)
	}
	if v, ok := md.Uint64(19); !ok || v != 0x0808080808080808 {
		t.Errorf("key 19 is %#x, %v", v, ok)
	}
	if v, ok := md.Bytes(20); !ok || len(v) != 0 {
		t.Errorf("key 20 is %x, %v", v, ok)
	}
	var keys []cmsg.Key
	for k := range md.All() {
		keys = append(keys, k)
	}
	if want := []cmsg.Key{20, 16, 19, 18, 17, 16}; !slices.Equal(keys, want) {
		t.Errorf("keys are %v, want %v", keys, want)
	}
}

func TestHeaderPutArea(t *testing.T) {
	p := testutil.Pair(t)
	testutil.EnterCgroup(t)
	objs, results := loadHeader(t)
	attachXDP(t, p.Server, p.ServerIf, objs.PutArea)
	md, err := exchange(t, p, p.ServerAddr6)
	must(t, err)
	if results() != [8]int64{} {
		t.Errorf("results are %v", results())
	}
	if md.Format() != cmsg.FormatStruct || len(md.Raw()) != 8+cmsg.AnchorLen {
		t.Errorf("format %v, area %x", md.Format(), md.Raw())
	}
	if _, ok := md.Bytes(7); ok {
		t.Error("the struct was read as TLVs")
	}
}

func TestHeaderPutUntilFull(t *testing.T) {
	requireArea(t, 48)
	p := testutil.Pair(t)
	testutil.EnterCgroup(t)
	objs, results := loadHeader(t)
	attachXDP(t, p.Server, p.ServerIf, objs.PutUntilFull)
	md, err := exchange(t, p, p.ServerAddr4)
	must(t, err)
	r := results()
	if r[0] < 1 || r[1] != -int64(unix.EINVAL) {
		t.Fatalf("%d values, then %d", r[0], r[1])
	}
	for i := range r[0] {
		if v, ok := md.Bytes(cmsg.Key(16 + i)); !ok || len(v) != 30 || v[0] != byte(i) {
			t.Errorf("value %d is %x, %v", i, v, ok)
		}
	}
	if err := md.Err(); err != nil {
		t.Error(err)
	}
}

// TestHeaderFind has a TC program read and change what an XDP program put.
func TestHeaderFind(t *testing.T) {
	p := testutil.Pair(t)
	testutil.EnterCgroup(t)
	objs, results := loadHeader(t)
	attachXDP(t, p.Server, p.ServerIf, objs.PutFew)
	attachTC(t, p.Server, p.ServerIf, ebpf.AttachTCXIngress, objs.ChangeValue)
	md, err := exchange(t, p, p.ServerAddr4)
	must(t, err)
	if v, ok := md.Uint16(17); !ok || v != 0x0203 {
		t.Errorf("key 17 is %#x, %v, want what the TC program wrote", v, ok)
	}
	if r := results(); r[7] != 1 {
		t.Error("found what is not there")
	}
}

// attachTC attaches a program by TCX, or by a filter on kernels without: that goes
// with the interface.
func attachTC(t testing.TB, ns *netlab.Namespace, iface string, at ebpf.AttachType, prog *ebpf.Program) {
	t.Helper()
	var l link.Link
	err := ns.Do(func() error {
		ifi, err := net.InterfaceByName(iface)
		if err != nil {
			return err
		}
		l, err = link.AttachTCX(link.TCXOptions{Program: prog, Interface: ifi.Index, Attach: at})
		return err
	})
	if errors.Is(err, ebpf.ErrNotSupported) {
		d := netlab.Ingress
		if at == ebpf.AttachTCXEgress {
			d = netlab.Egress
		}
		must(t, netlab.AddFilter(ns, iface, d, prog.FD()))
		return
	}
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/internal/abi"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"nonsense"}, {"headers"}, {"headers", "a", "b"}, {"attach", "extra"}, {"attach", "-service", "1=2"}, {"attach", "-local", "lo"}, {"attach", "-join", "-mark-mask", "1"}, {"attach", "-join", "-tracing"}} {
		if err := run(t.Context(), args, io.Discard); !errors.Is(err, errUsage) {
			t.Errorf("%q: %v, want the usage", args, err)
		}
	}
	for _, flag := range []struct{ name, value string }{
		{"-service", "x"}, {"-service", "1=x"}, {"-service", "65536=1"},
		{"-mark-mask", "x"}, {"-mark-mask", "0x100000000"}, {"-max-priority", "-1"},
		{"-local-key", "x"}, {"-local-key", "256"}, {"-local-key", "0"},
		{"-grant", ""}, {"-grant", "/p"}, {"-grant", "=/p"}, {"-grant", ":=/p"}, {"-grant", "0:0"}, {"-grant", "0="},
		{"-grant", "no such user=/p"}, {"-grant", ":no such group=/p"}, {"-grant", "-1=/p"},
		{"-local-key", "pad"}, {"-local-key", "sender"}, {"-local-key", "anchor"}, {"-local-key", "255"},
	} {
		if _, err := parseAttach([]string{"-producer", "lo", flag.name, flag.value}); err == nil {
			t.Errorf("%s %s is no error", flag.name, flag.value)
		}
	}
}

func TestFlags(t *testing.T) {
	got, err := parseAttach(strings.Fields("-cgroup /c -slots 16 -max-sockets 9 -max-sockets-per-user 3 -tracing -producer eth0 -service 443=7 -service 80=0x10 " +
		"-mark-mask 0xff00 -max-priority 10 -no-launch-times -local-key trace_id -local-key 16 -local lo -local veth0 -pin /p " +
		"-grant root=/g -grant :7=/h -grant 5:root=/i"))
	if err != nil {
		t.Fatal(err)
	}
	want := attachOptions{
		Options: bpf.Options{
			Cgroup: "/c", SlotsPerCPU: 16, MaxSockets: 9, MaxSocketsPerUser: 3, Tracing: true,
			Policy: &bpf.Policy{
				MarkMask: 0xff00, MaxPriority: 10,
				LocalKeys: []uint8{abi.KeyTraceID, 16},
			},
		},
		producer: "eth0", services: services{443: 7, 80: 16},
		locals: []string{"lo", "veth0"}, pin: "/p",
		grants: []bpf.Grant{{Path: "/g"}, {Path: "/h", GID: 7}, {Path: "/i", UID: 5}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	got, err = parseAttach(nil)
	policy := bpf.DefaultPolicy()
	if want := (attachOptions{Options: bpf.Options{Policy: &policy}, services: services{}}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("without flags: %+v, %v", got, err)
	}
}

func TestHeaders(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "include")
	if err := run(t.Context(), []string{"headers", dir}, io.Discard); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sockmeta.h", "sockmeta_abi.h", "sockmeta_tx.h"} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		want, _ := os.ReadFile(filepath.Join("../../bpf/include", name))
		if err != nil || len(got) == 0 || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, want the %d of the source: %v", name, len(got), len(want), err)
		}
	}
	// It names the file, as every error of the file system does.
	err := run(t.Context(), []string{"headers", filepath.Join(dir, "sockmeta.h")}, io.Discard)
	var pe *fs.PathError
	if !errors.As(err, &pe) {
		t.Errorf("into a file: %v (%T)", err, err)
	}
}

func TestStatus(t *testing.T) {
	testutil.ShieldCgroup(t)
	var out bytes.Buffer
	if err := run(t.Context(), []string{"status"}, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"udp: ", "tcp: "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("status is %q, want %q in it", out.String(), want)
		}
	}
	// Where there is metadata, it is by the native tier or there is a line that says
	// why not.
	if s := out.String(); !strings.Contains(s, "udp: none") && strings.Contains(s, "udp: native") == strings.Contains(s, "no native: ") {
		t.Errorf("status is %q", s)
	}
}

// lines sends what is written to a channel.
type lines chan string

func (l lines) Write(b []byte) (int, error) {
	l <- string(b)
	return len(b), nil
}

func (l lines) want(t *testing.T, done <-chan error, prefix string) {
	t.Helper()
	select {
	case err := <-done:
		t.Fatalf("ended with %v, want %q first", err, prefix)
	case line := <-l:
		if !strings.HasPrefix(line, prefix) {
			t.Fatalf("says %q, want %q", line, prefix)
		}
	}
}

// nobody returns what status says of a cgroup that nobody has attached to.
func nobody(t *testing.T) bool {
	t.Helper()
	var out bytes.Buffer
	if err := run(t.Context(), []string{"status"}, &out); err != nil {
		t.Fatal(err)
	}
	return strings.HasPrefix(out.String(), "nobody has attached")
}

func TestAttach(t *testing.T) {
	testutil.EnterCgroup(t)
	if attached, err := isAttached(); err != nil || attached {
		t.Skipf("somebody has attached to a cgroup above: %v, %v", attached, err)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	out := make(lines, 1)
	done := make(chan error, 1)
	go func() { done <- run(ctx, []string{"attach"}, out) }()
	out.want(t, done, "attached to ")
	out.want(t, done, "applications may ask for: mark bits 0x0, priorities up to 6, launch times\n")
	u, err := sockmeta.ListenUDP("udp", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if err := u.Support().Err(); err != nil {
		t.Error(err)
	}
	if nobody(t) {
		t.Error("status says that nobody has attached")
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestAttachJoin shares what is attached as it is, and only with -join.
func TestAttachJoin(t *testing.T) {
	cg := testutil.EnterCgroup(t)
	a, err := bpf.Attach(bpf.Options{Cgroup: cg.Path(), Policy: &bpf.Policy{MarkMask: 0xf}})
	if err != nil {
		t.Skip(err)
	}
	defer a.Close()
	if err := run(t.Context(), []string{"attach"}, io.Discard); !errors.Is(err, bpf.ErrConflict) || !strings.Contains(err.Error(), "-join") {
		t.Errorf("attach ended with %v, want ErrConflict and what to do", err)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	out := make(lines, 1)
	done := make(chan error, 1)
	go func() { done <- run(ctx, []string{"attach", "-join"}, out) }()
	out.want(t, done, "attached to "+cg.Path())
	out.want(t, done, "applications may ask for: mark bits 0xf, priorities up to 0, no launch times\n")
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestAttachRemoved has the cgroup removed, as service managers do.
func TestAttachRemoved(t *testing.T) {
	child := filepath.Join(testutil.EnterCgroup(t).Path(), "child")
	if err := os.Mkdir(child, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(child)
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	out := make(lines, 2)
	done := make(chan error, 1)
	go func() { done <- run(ctx, []string{"attach", "-cgroup", child}, out) }()
	out.want(t, done, "attached to "+child)
	out.want(t, done, "applications may ask for: ")
	if err := os.Remove(child); err != nil {
		t.Fatal(err)
	}
	// Another one is not the one that there was.
	if err := os.Mkdir(child, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil || !strings.Contains(err.Error(), child+" was removed") {
		t.Errorf("ended with %v", err)
	}
}

// TestAttachTransmit has an application's metadata cross loopback as far as the
// flags let it, and counted, and the maps pinned meanwhile.
func TestAttachTransmit(t *testing.T) {
	testutil.EnterCgroup(t)
	ns := testutil.Namespace(t)
	bpffs := t.TempDir()
	if err := syscall.Mount("bpf", bpffs, "bpf", 0, ""); err != nil {
		t.Fatal(os.NewSyscallError("mount", err))
	}
	defer syscall.Unmount(bpffs, 0)
	pins, grant := filepath.Join(bpffs, "pins"), filepath.Join(bpffs, "rx")

	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	out := make(lines, 1)
	done := make(chan error, 1)
	go func() {
		args := []string{"attach", "-mark-mask", "0xf0", "-local-key", "trace_id", "-local", "lo", "-pin", pins, "-grant", "1:2=" + grant}
		done <- ns.Do(func() error { return run(ctx, args, out) })
	}()
	out.want(t, done, "attached to ")
	out.want(t, done, "applications may ask for: mark bits 0xf0, priorities up to 6, launch times, to receivers on this host trace_id\n")
	select {
	case err := <-done:
		if errors.Is(err, sockmeta.ErrNotSupported) {
			t.Skip(err)
		}
		t.Fatal(err)
	case line := <-out:
		if line != "local on lo\n" {
			t.Fatalf("says %q", line)
		}
	}
	out.want(t, done, "maps pinned in "+pins)
	if found, err := os.ReadDir(pins); err != nil || len(found) != 2 {
		t.Errorf("pinned: %v, %v", found, err)
	}

	out.want(t, done, "receive map granted in "+grant)
	if st, err := os.Stat(grant); err != nil {
		t.Error(err)
	} else if sys := st.Sys().(*syscall.Stat_t); st.Mode() != 0o660 || sys.Uid != 1 || sys.Gid != 2 {
		t.Errorf("grant has mode %v and is of %d:%d", st.Mode(), sys.Uid, sys.Gid)
	}

	var from, to *sockmeta.UDPConn
	err := ns.Do(func() (err error) {
		if to, err = sockmeta.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
			return err
		}
		from, err = sockmeta.DialUDP("udp4", nil, to.LocalAddr().(*net.UDPAddr))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	defer from.Close()
	var md, sender sockmeta.Metadata
	md.SetMark(0x0f)
	for key, value := range map[sockmeta.Key]string{sockmeta.KeyTraceID: "0123456789abcdef", sockmeta.KeyUser: "secret"} {
		if err := md.SetBytes(key, []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := from.WriteMetadata([]byte("hello"), &md, netip.AddrPort{}); !errors.Is(err, sockmeta.ErrRefused) {
		t.Errorf("sent with %v, want the mark refused", err)
	}
	if _, _, err := to.ReadMetadata(make([]byte, 10), &md); err != nil {
		t.Fatal(err)
	}
	md.Sender(&sender)
	if got, want := sender.String(), "trace_id=0x"+hex.EncodeToString([]byte("0123456789abcdef")); got != want {
		t.Errorf("received %q from the sender, want %q", got, want)
	}

	const counts = "sent: 1 packets with metadata, 1 of them to receivers on this host, " +
		"1 marks refused, 1 values kept from receivers on this host\n"
	if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	out.want(t, done, counts)
	stop()
	out.want(t, done, counts)
	if err := <-done; err != nil {
		t.Error(err)
	}
	for _, path := range []string{pins, grant} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
}

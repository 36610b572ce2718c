// SPDX-License-Identifier: Apache-2.0

package testutil

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/internal/cgroup2"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
)

func TestMain(m *testing.M) {
	Main(m, map[string]func() error{
		"status": reportStatus,
		"netns": func() error {
			link, err := os.Readlink("/proc/self/ns/net")
			fmt.Print(link)
			return err
		},
		"cgroup": func() error {
			dir, err := cgroup2.Self()
			fmt.Print(dir)
			return err
		},
		"file": func() error {
			f := ChildFile(1)
			defer f.Close()
			_, err := io.Copy(os.Stdout, f)
			return err
		},
		"env":   func() error { fmt.Print(os.Getenv("SOCKMETA_TESTUTIL")); return nil },
		"fail":  func() error { fmt.Println("output"); return errors.New("deliberate") },
		"panic": func() error { panic("deliberate") },
		"raw": func() error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_UDP)
			if err == nil {
				unix.Close(fd)
			}
			return err
		},
		"require": func() error {
			RequireRoot(fakeTB{}, unix.CAP_BPF, unix.CAP_NET_RAW)
			return nil
		},
	})
}

// fakeTB prints what a test would have been skipped or failed with.
type fakeTB struct{ testing.TB }

func (fakeTB) Helper()           {}
func (fakeTB) Skip(args ...any)  { fmt.Print("skip: ", fmt.Sprint(args...)) }
func (fakeTB) Fatal(args ...any) { fmt.Print("fatal: ", fmt.Sprint(args...)); os.Exit(0) }

// reportStatus prints the privileges of every thread, one "field value" each
// line, failing if threads differ.
func reportStatus() error {
	// Have some threads besides those the runtime starts with.
	for range 4 {
		go func() { runtime.LockOSThread(); select {} }()
	}
	time.Sleep(10 * time.Millisecond)

	files, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil || len(files) < 4 {
		return fmt.Errorf("%d tasks: %v", len(files), err)
	}
	var first string
	for _, name := range files {
		status, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		var b strings.Builder
		for line := range strings.Lines(string(status)) {
			field, value, _ := strings.Cut(line, ":")
			switch field {
			case "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs":
				fmt.Fprintln(&b, field, strings.Join(strings.Fields(value), " "))
			}
		}
		if first == "" {
			first = b.String()
		}
		if b.String() != first {
			return fmt.Errorf("threads differ:\n%s\n%s", first, b.String())
		}
	}
	fmt.Print(first)
	return nil
}

func status(t *testing.T, opts ChildOptions) map[string]string {
	t.Helper()
	RequireRoot(t, unix.CAP_SETUID, unix.CAP_SETGID, unix.CAP_SETPCAP)
	out, err := RunChild(t, "status", opts)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return parseStatus(out)
}

func parseStatus(out []byte) map[string]string {
	fields := make(map[string]string)
	for line := range strings.Lines(string(out)) {
		field, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		fields[field] = value
	}
	return fields
}

func capSet(t *testing.T, hex string) uint64 {
	t.Helper()
	set, err := strconv.ParseUint(hex, 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestRunChildSame(t *testing.T) {
	have, err := effectiveCaps()
	if err != nil {
		t.Fatal(err)
	}
	s := status(t, ChildOptions{})
	if got := capSet(t, s["CapEff"]); got != have {
		t.Errorf("child has capabilities %#x, want %#x", got, have)
	}
}

func TestRunChildDropCaps(t *testing.T) {
	have, err := effectiveCaps()
	if err != nil {
		t.Fatal(err)
	}
	s := status(t, ChildOptions{DropCaps: []uintptr{unix.CAP_BPF, unix.CAP_SYS_ADMIN}})
	want := have &^ (1<<unix.CAP_BPF | 1<<unix.CAP_SYS_ADMIN)
	for _, set := range []string{"CapEff", "CapPrm", "CapBnd"} {
		if got := capSet(t, s[set]); got != want {
			t.Errorf("%s is %#x, want %#x", set, got, want)
		}
	}
	if !strings.HasPrefix(s["Uid"], "0 ") {
		t.Errorf("uid is %s", s["Uid"])
	}
	if after, err := effectiveCaps(); err != nil || after != have {
		t.Errorf("the test process now has %#x, %v", after, err)
	}
	if bnd := status(t, ChildOptions{})["CapBnd"]; capSet(t, bnd) != have {
		t.Errorf("the next child's bounding set is %s", bnd)
	}
}

func TestRunChildKeepCaps(t *testing.T) {
	const want uint64 = 1<<unix.CAP_NET_RAW | 1<<unix.CAP_PERFMON
	for _, uid := range []uint32{0, nobody} {
		s := status(t, ChildOptions{UID: uid, GID: uid, KeepCaps: []uintptr{unix.CAP_NET_RAW, unix.CAP_PERFMON}})
		for _, set := range []string{"CapEff", "CapPrm", "CapBnd"} {
			if got := capSet(t, s[set]); got != want {
				t.Errorf("uid %d: %s is %#x, want %#x", uid, set, got, want)
			}
		}
	}
	if s := status(t, ChildOptions{KeepCaps: []uintptr{}}); capSet(t, s["CapEff"]) != 0 {
		t.Errorf("none kept but %s", s["CapEff"])
	}
}

func TestUnprivileged(t *testing.T) {
	s := parseStatus(Unprivileged(t, "status"))
	for _, set := range []string{"CapEff", "CapPrm", "CapInh", "CapAmb", "CapBnd"} {
		if capSet(t, s[set]) != 0 {
			t.Errorf("%s is %s", set, s[set])
		}
	}
	for _, id := range []string{"Uid", "Gid"} {
		if s[id] != "65534 65534 65534 65534" {
			t.Errorf("%s is %s", id, s[id])
		}
	}
	if s["Groups"] != "" || s["NoNewPrivs"] != "1" {
		t.Errorf("groups are %q, no_new_privs is %s", s["Groups"], s["NoNewPrivs"])
	}
}

func TestRunChildCombined(t *testing.T) {
	ns := Namespace(t)
	out, err := RunChild(t, "raw", ChildOptions{UID: nobody, GID: nobody, KeepCaps: []uintptr{unix.CAP_NET_RAW}, Netns: ns})
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	out, err = RunChild(t, "raw", ChildOptions{DropCaps: []uintptr{unix.CAP_NET_RAW}, Netns: ns})
	if err == nil || !strings.Contains(string(out), unix.EPERM.Error()) {
		t.Errorf("without CAP_NET_RAW: %v\n%s", err, out)
	}
}

func TestRunChildNetns(t *testing.T) {
	Leaks(t)
	ns := Namespace(t)
	want, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", ns.File().Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if out, err := RunChild(t, "netns", ChildOptions{Netns: ns}); err != nil || string(out) != want {
		t.Errorf("child is in %s, %v, want %s", out, err, want)
	}
	home, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := RunChild(t, "netns", ChildOptions{}); err != nil || string(out) != home {
		t.Errorf("child is in %s, %v, want %s", out, err, home)
	}
}

func TestRunChildCgroup(t *testing.T) {
	Leaks(t)
	cg := Cgroup(t)
	if out, err := RunChild(t, "cgroup", ChildOptions{Cgroup: cg.Path()}); err != nil || string(out) != cg.Path() {
		t.Errorf("child is in %s, %v, want %s", out, err, cg.Path())
	}
}

func TestEnterCgroup(t *testing.T) {
	Leaks(t)
	cg := EnterCgroup(t)
	if dir, err := cgroup2.Self(); err != nil || dir != cg.Path() {
		t.Errorf("in %s, %v, want %s", dir, err, cg.Path())
	}
}

func TestRunChildFilesAndEnv(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := w.WriteString("through the pipe"); err != nil {
		t.Fatal(err)
	}
	w.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if out := Unprivileged(t, "file", null, r); string(out) != "through the pipe" {
		t.Errorf("output is %q", out)
	}
	out, err := RunChild(t, "env", ChildOptions{Env: []string{"SOCKMETA_TESTUTIL=value"}})
	if err != nil || string(out) != "value" {
		t.Errorf("output is %q, %v", out, err)
	}
}

func TestRunChildFailure(t *testing.T) {
	out, err := RunChild(t, "fail", ChildOptions{})
	if err == nil || string(out) != "output\ndeliberate\n" {
		t.Errorf("failing: %v, %q", err, out)
	}
	out, err = RunChild(t, "panic", ChildOptions{})
	if err == nil || !strings.Contains(string(out), "panic: deliberate") {
		t.Errorf("panicking: %v, %q", err, out)
	}
}

func TestRequireRoot(t *testing.T) {
	RequireRoot(t)
	for _, tc := range []struct{ env, want string }{
		{"0", "skip: needs CAP_BPF; run as root"},
		{"1", "fatal: needs CAP_BPF; run as root"},
	} {
		out, err := RunChild(t, "require", ChildOptions{
			DropCaps: []uintptr{unix.CAP_BPF},
			Env:      []string{requireRootEnv + "=" + tc.env},
		})
		if err != nil || string(out) != tc.want {
			t.Errorf("got %q, %v, want %q", out, err, tc.want)
		}
	}
}

// settledCensus waits for goroutines of earlier tests that are about to end:
// they would hide a new one.
func settledCensus(t *testing.T) census {
	t.Helper()
	c := takeCensus(t)
	for same := 0; same < 20; same++ {
		time.Sleep(5 * time.Millisecond)
		if now := takeCensus(t); now.goroutines != c.goroutines {
			c, same = now, -1
		}
	}
	return c
}

func TestLeaked(t *testing.T) {
	before := settledCensus(t)
	ns := Namespace(t)
	if leak := before.leaked(takeCensus(t)); !strings.Contains(leak, "1 network namespaces") {
		t.Errorf("open namespace: %q", leak)
	}
	ns.Close()

	cg, err := netlab.NewCgroup("leak")
	if err != nil {
		t.Skip(err)
	}
	if leak := before.leaked(takeCensus(t)); !strings.Contains(leak, cg.Path()) {
		t.Errorf("cgroup: %q", leak)
	}
	if err := cg.Close(); err != nil {
		t.Fatal(err)
	}

	a, b := net.Pipe()
	go io.Copy(io.Discard, b)
	// Those that made the namespace and the cgroup may not have ended yet.
	if leak := before.leaked(settledCensus(t)); !strings.Contains(leak, "1 goroutines") {
		t.Errorf("goroutine: %q", leak)
	}
	a.Close()
}

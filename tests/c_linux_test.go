// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/internal/abi"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testprog"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
)

// A cServer is a server of examples/c: it prints a line for each thing that it reads.
type cServer struct {
	cmd    *exec.Cmd
	lines  *bufio.Scanner
	stderr bytes.Buffer
}

// startC starts a server on a host, at serverPort, for a user without any privilege.
func startC(t *testing.T, ns *netlab.Namespace, name string, count int) *cServer {
	t.Helper()
	// Others may not enter the directory that it is in.
	program, err := os.Open(cProgram(t, name))
	must(t, err)
	defer program.Close()
	// It waits for ever for a datagram that was lost.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	s := &cServer{cmd: exec.CommandContext(ctx, "/proc/self/fd/3", strconv.Itoa(serverPort), strconv.Itoa(count))}
	s.cmd.Dir = "/"
	s.cmd.ExtraFiles = []*os.File{program}
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	s.cmd.Stderr = &s.stderr
	out, err := s.cmd.StdoutPipe()
	must(t, err)
	must(t, ns.Do(s.cmd.Start))
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	})
	s.lines = bufio.NewScanner(out)
	if line := s.next(t); line != "ready" {
		t.Fatalf("%s said %q", name, line)
	}
	return s
}

func (s *cServer) next(t *testing.T) string {
	t.Helper()
	if !s.lines.Scan() {
		_ = s.cmd.Wait()
		t.Fatalf("%s ended: %v\n%s", s.cmd, s.lines.Err(), &s.stderr)
	}
	return s.lines.Text()
}

// ends waits for a server that has read all that it was to read.
func (s *cServer) ends(t *testing.T) {
	t.Helper()
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("%s: %v\n%s", s.cmd, err, &s.stderr)
	}
}

// number returns the one that a datagram's payload begins with, of which there are count
// from first on, and what its packet knew.
func number(t *testing.T, line string, first, count uint64) (id uint64, knew string) {
	t.Helper()
	before, knew, ok := strings.Cut(line, ":")
	if _, err := fmt.Sscanf(before, "15 bytes of %d", &id); err != nil || !ok || id < first || id >= first+count {
		t.Fatalf("recvmeta said %q", line)
	}
	return id, knew + " "
}

// printed is how the servers print a value.
func printed(key int, bytes []byte) string { return fmt.Sprintf(" %d=%x ", key, bytes) }

func sendNumbered(t *testing.T, ns *netlab.Namespace, to netip.AddrPort, first, count uint64) {
	t.Helper()
	var c *net.UDPConn
	must(t, ns.Do(func() (err error) {
		c, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
		return err
	}))
	defer c.Close()
	for id := first; id < first+count; id++ {
		_, err := c.Write([]byte(numbered(id)))
		must(t, err)
	}
}

// attachForC lets another process's sockets have metadata: it starts in the cgroup that
// this one is in.
func attachForC(t *testing.T, opts bpf.Options) *bpf.Attachment {
	t.Helper()
	testutil.EnterCgroup(t)
	a, err := bpf.Attach(opts)
	must(t, err)
	t.Cleanup(func() { _ = a.Close() })
	return a
}

// TestCReceive has a C program receive metadata on whatever kernel this is.
func TestCReceive(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	p := testutil.Pair(t)
	must(t, p.Introduce())
	attachForC(t, bpf.Options{})
	attachEchoUDP(t, p)
	index, err := netlab.Index(p.Server, p.ServerIf)
	must(t, err)
	const count = 20
	s := startC(t, p.Server, "recvmeta", 2*count)
	for i, server := range []netip.Addr{p.ServerAddr4, p.ServerAddr6} {
		first := uint64(1000 * (i + 1))
		sendNumbered(t, p.Client, netip.AddrPortFrom(server, serverPort), first, count)
		for range count {
			id, knew := number(t, s.next(t), first, count)
			for _, want := range []string{
				printed(testprog.KeyID, binary.NativeEndian.AppendUint64(nil, id)), fmt.Sprintf(" ifindex=%d ", index),
			} {
				if !strings.Contains(knew, want) {
					t.Errorf("datagram %d: %q, want%s", id, knew, want)
				}
			}
			if strings.Contains(knew, "flags") {
				t.Errorf("datagram %d: %q, want no doubt", id, knew)
			}
		}
	}
	s.ends(t)
}

// TestCReceiveLate has so many datagrams wait that most of their records are lost: none is
// to come with another's. The native tier loses none.
func TestCReceiveLate(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	p := testutil.Pair(t)
	must(t, p.Introduce())
	native := attachForC(t, bpf.Options{SlotsPerCPU: 2}).Info().Features&abi.FeatureNative != 0
	attachEchoUDP(t, p)
	// Each may take a page of the socket's buffer, where all have to wait.
	const count = 30
	s := startC(t, p.Server, "recvmeta", count)
	must(t, s.cmd.Process.Signal(unix.SIGSTOP))
	sendNumbered(t, p.Client, netip.AddrPortFrom(p.ServerAddr4, serverPort), 1, count)
	must(t, s.cmd.Process.Signal(unix.SIGCONT))
	var had, lost int
	for range count {
		id, knew := number(t, s.next(t), 1, count)
		switch {
		case strings.Contains(knew, printed(testprog.KeyID, binary.NativeEndian.AppendUint64(nil, id))):
			had++
		case strings.Contains(knew, " no record: Value too large"): // EOVERFLOW
			lost++
		default:
			t.Errorf("datagram %d: %q", id, knew)
		}
	}
	if had == 0 || (lost == 0) != native {
		t.Errorf("%d datagrams had records, %d had lost them; native: %v", had, lost, native)
	}
	s.ends(t)
}

// TestCReceiveNothing has the servers run where nobody has attached.
func TestCReceiveNothing(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	p := testutil.Pair(t)
	testutil.EnterCgroup(t)
	s := startC(t, p.Server, "recvmeta", 1)
	sendNumbered(t, p.Client, netip.AddrPortFrom(p.ServerAddr4, serverPort), 7, 1)
	if _, knew := number(t, s.next(t), 7, 1); knew != " no record: No data available " {
		t.Errorf("recvmeta said %q", knew)
	}
	s.ends(t)
	if !strings.HasPrefix(s.stderr.String(), "no records: ") {
		t.Errorf("recvmeta complained %q", &s.stderr)
	}
}

// TestCReceiveTCP has a C program read a connection's bytes, segment by segment.
func TestCReceiveTCP(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	p := testutil.Pair(t)
	must(t, p.Introduce())
	attachForC(t, bpf.Options{})
	var objs testprog.EchoObjects
	spec, err := testprog.Prepared(testprog.LoadEcho())
	must(t, err)
	must(t, spec.LoadAndAssign(&objs, nil))
	defer objs.Close()
	attachXDP(t, p.Server, p.ServerIf, objs.EchoTcp)
	servers := []netip.Addr{p.ServerAddr4, p.ServerAddr6}
	s := startC(t, p.Server, "tcpmeta", len(servers))
	// expect reads a line about a segment, whose payload the producer has counted.
	expect := func(what string, payload int) {
		t.Helper()
		line := s.next(t) + " "
		want := printed(testprog.KeyLen, binary.NativeEndian.AppendUint32(nil, uint32(payload)))
		if !strings.HasPrefix(line, what+":") || !strings.Contains(line, want) {
			t.Errorf("tcpmeta said %q, want %s:%s", line, what, want)
		}
	}
	for _, server := range servers {
		var c *net.TCPConn
		must(t, p.Client.Do(func() (err error) {
			c, err = net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(netip.AddrPortFrom(server, serverPort)))
			return err
		}))
		defer c.Close()
		expect("opened", 0)
		for _, n := range []int{1, 1000, 77} {
			_, err := c.Write(make([]byte, n))
			must(t, err)
			expect(fmt.Sprintf("%d bytes", n), n)
		}
		must(t, c.Close())
	}
	s.ends(t)
}

// TestCEnable has a C program opt sockets in, and look at what became of its own options.
func TestCEnable(t *testing.T) {
	program := compileC(t, "testdata/enable.c")
	testutil.RequireRoot(t)
	attachForC(t, bpf.Options{})
	if out, err := exec.CommandContext(t.Context(), program).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

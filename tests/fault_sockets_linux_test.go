// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

func init() {
	children["faultSockets"] = faultSockets
}

// faultEnv has the index of a fault in socketFaults.
const faultEnv = "SOCKMETA_TEST_FAULT"

// socketFaults are steps that fail whenever they are made, until the fault is over.
var socketFaults = []struct {
	name  string
	fails func(step) bool
	errno unix.Errno
	// want is in the errors.
	want string
}{
	{"bpf", func(s step) bool { return s.nr == unix.SYS_BPF }, unix.EPERM, "seccomp filter"},
	{"map", func(s step) bool { return s.bpf.Name == "sockmeta_rx" }, unix.ENOMEM, "sockmeta_rx"},
	{"program", func(s step) bool { return s.bpf.Name == "sockmeta_sockop" }, unix.EINVAL, "sockmeta_sockops"},
	{"receive map", func(s step) bool { return s.nr == unix.SYS_MMAP }, unix.ENOMEM, "receive map"},
	{"link", func(s step) bool { return s.bpf.Cmd == unix.BPF_LINK_CREATE && s.bpf.AttachType != 0 }, unix.EBUSY, "cgroup/getsockopt"},
}

// TestFaultSockets opens sockets while nothing can be attached: they are plain ones,
// and say why. When the fault is over, the process attaches.
func TestFaultSockets(t *testing.T) {
	testutil.RequireRoot(t)
	for i, f := range socketFaults {
		if testing.Short() && i != 0 && i != len(socketFaults)-1 {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			testutil.Leaks(t)
			bareCgroup(t)
			ns := testutil.Namespace(t)
			out, err := testutil.RunChild(t, "faultSockets", testutil.ChildOptions{
				Netns: ns, Env: []string{faultEnv + "=" + strconv.Itoa(i)},
			})
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func faultSockets() error {
	i, err := strconv.Atoi(os.Getenv(faultEnv))
	if err != nil {
		return err
	}
	f := socketFaults[i]
	var sab saboteur
	if err := testutil.JudgeCalls(sab.judge, unix.SYS_BPF, unix.SYS_FLOCK, unix.SYS_MMAP); err != nil {
		return err
	}
	sab.begin(sabotage{on: true, at: nothing, errno: f.errno, always: f.fails})
	if err := plainSockets(f.want, f.errno); err != nil {
		return err
	}
	sab.begin(sabotage{})
	a, err := bpf.Attach(bpf.Options{})
	if err != nil {
		return fmt.Errorf("the fault is over: %w", err)
	}
	defer a.Close()
	return verifyLoopback()
}

// plainSockets opens sockets where there is no metadata, whose errors have text in
// them, and are errno where that is not 0.
func plainSockets(text string, errno unix.Errno) error {
	check := func(what string, err error) error {
		switch {
		case !errors.Is(err, sockmeta.ErrNotSupported) || !sockmeta.IsMetadataError(err):
			return fmt.Errorf("%s: not about metadata: %v", what, err)
		case errno != 0 && !errors.Is(err, errno):
			return fmt.Errorf("%s: not %q: %w", what, errno, err)
		case !strings.Contains(err.Error(), text):
			return fmt.Errorf("%s: does not name %q: %w", what, text, err)
		}
		return nil
	}
	return errors.Join(plainUDP(check), plainTCP(check), requiredSockets(check))
}

func plainUDP(check func(string, error) error) error {
	c, _, err := loopback()
	if err != nil {
		return err
	}
	defer c.Close()
	s := c.Support()
	if s.Tier != sockmeta.TierNone || s.Mapped {
		return fmt.Errorf("support is %v", s)
	}
	if err := check("support", s.Err()); err != nil {
		return err
	}
	var md sockmeta.Metadata
	md.SetPriority(1)
	n, err := c.WriteMetadata([]byte("payload"), &md, c.LocalAddr().(*net.UDPAddr).AddrPort())
	if n != len("payload") {
		return fmt.Errorf("WriteMetadata: %d, %w", n, err)
	}
	if err := check("WriteMetadata", err); err != nil {
		return err
	}
	b := make([]byte, 64)
	n, from, err := c.ReadMetadata(b, &md)
	if string(b[:n]) != "payload" || from != c.LocalAddr().(*net.UDPAddr).AddrPort() || md != (sockmeta.Metadata{}) {
		return fmt.Errorf("ReadMetadata: %q from %v, %v, %w", b[:n], from, md, err)
	}
	return check("ReadMetadata", err)
}

func plainTCP(check func(string, error) error) error {
	l, err := sockmeta.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = io.Copy(c, c)
			_ = c.Close()
		}
	}()
	nc, err := sockmeta.Dial("tcp", l.Addr().String())
	if err != nil {
		return err
	}
	defer nc.Close()
	c := nc.(*sockmeta.TCPConn)
	if err := c.SetDeadline(time.Now().Add(udpPatience)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, "payload"); err != nil {
		return err
	}
	if err := c.CloseWrite(); err != nil {
		return err
	}
	if b, err := io.ReadAll(c); err != nil || string(b) != "payload" {
		return fmt.Errorf("TCP: %q, %w", b, err)
	}
	_, err = c.Metadata()
	var md sockmeta.Metadata
	md.SetPriority(1)
	return errors.Join(check("TCP metadata", err), check("SetMetadata", c.SetMetadata(&md)))
}

// requiredSockets are none where metadata is required.
func requiredSockets(check func(string, error) error) error {
	lc := sockmeta.ListenConfig{Require: true}
	d := sockmeta.Dialer{Require: true}
	pc, perr := lc.ListenPacket(context.Background(), "udp", "127.0.0.1:0")
	l, lerr := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	c, cerr := d.DialUDP(context.Background(), "udp", netip.AddrPort{}, netip.MustParseAddrPort("127.0.0.1:9"))
	if pc != nil || l != nil || c != nil {
		return fmt.Errorf("required, and there are %v, %v, %v", pc, l, c)
	}
	return errors.Join(check("ListenPacket", perr), check("Listen", lerr), check("DialUDP", cerr))
}

// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/conn"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

func init() {
	children["bequeath"] = func() error { return bequeath("inherit", nil) }
	children["bequeathToPlain"] = func() error { return bequeath("inheritPlain", nil) }
	children["bequeathToNobody"] = func() error {
		return bequeath("inherit", &syscall.Credential{Uid: nobody, Gid: nobody})
	}
	children["inherit"] = func() error { return inherit(wrapInherited) }
	children["inheritPlain"] = func() error { return inherit(plainInherited) }
}

const (
	inheritPort    = 7400
	inheritService = 4242
)

// bequeath opens sockets and leaves them to a process that it starts. The files are
// what the heir is told by and answers on, and what this process is told to die by.
func bequeath(heir string, as *syscall.Credential) error {
	udp, err := sockmeta.ListenUDP("udp4", &net.UDPAddr{Port: inheritPort})
	if err != nil {
		return err
	}
	tcp, err := sockmeta.ListenTCP("tcp4", &net.TCPAddr{Port: inheritPort})
	if err != nil {
		return err
	}
	udpFile, err := udp.File()
	if err != nil {
		return err
	}
	tcpFile, err := tcp.File()
	if err != nil {
		return err
	}
	cmd := testutil.ChildCommand(heir)
	cmd.ExtraFiles = []*os.File{testutil.ChildFile(0), testutil.ChildFile(1), udpFile, tcpFile}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	if err := cmd.Start(); err != nil {
		return err
	}
	kill := make([]byte, 1)
	if n, _ := testutil.ChildFile(2).Read(kill); n == 1 {
		return unix.Kill(os.Getpid(), unix.SIGKILL)
	}
	return cmd.Wait()
}

// inheritance are sockets in use. Each reads what came, and its metadata.
type inheritance struct {
	readUDP, readTCP func(b []byte) (n int, md sockmeta.Metadata, err error)
}

// inherit reads from a socket, of UDP or TCP, for each 'u' or 't' that comes, and tells
// what it read.
func inherit(use func(udp, tcp *os.File) (*inheritance, error)) error {
	control, answer := testutil.ChildFile(0), testutil.ChildFile(1)
	in, err := use(testutil.ChildFile(2), testutil.ChildFile(3))
	if err != nil {
		fmt.Fprintln(answer, err)
		return err
	}
	fmt.Fprintln(answer, "ready")
	for order := bufio.NewReader(control); ; {
		which, err := order.ReadByte()
		if err != nil {
			return nil
		}
		read := in.readUDP
		if which == 't' {
			read = in.readTCP
		}
		b := make([]byte, 64)
		n, md, err := read(b)
		service, _ := md.Uint32(sockmeta.KeyServiceID)
		fmt.Fprintf(answer, "%q %d %v\n", b[:n], service, err)
	}
}

func openInherited(udp, tcp *os.File) (*net.UDPConn, *net.TCPListener, error) {
	pc, err := net.FilePacketConn(udp)
	if err != nil {
		return nil, nil, err
	}
	l, err := net.FileListener(tcp)
	if err != nil {
		return nil, nil, err
	}
	deadline := time.Now().Add(2 * udpPatience)
	return pc.(*net.UDPConn), l.(*net.TCPListener), errors.Join(pc.SetDeadline(deadline), l.(*net.TCPListener).SetDeadline(deadline))
}

func wrapInherited(udp, tcp *os.File) (*inheritance, error) {
	pc, nl, err := openInherited(udp, tcp)
	if err != nil {
		return nil, err
	}
	c, l := sockmeta.WrapUDP(pc), conn.NewTCPListener(nl)
	return &inheritance{
		readUDP: func(b []byte) (n int, md sockmeta.Metadata, err error) {
			n, _, err = c.ReadMetadata(b, &md)
			return n, md, err
		},
		readTCP: func(b []byte) (n int, md sockmeta.Metadata, err error) {
			tc, err := l.AcceptTCP()
			if err != nil {
				return 0, md, err
			}
			defer tc.Close()
			n, err = tc.Read(b)
			if err == nil {
				md, err = tc.Metadata()
			}
			return n, md, err
		},
	}, nil
}

func plainInherited(udp, tcp *os.File) (*inheritance, error) {
	c, l, err := openInherited(udp, tcp)
	if err != nil {
		return nil, err
	}
	return &inheritance{
		readUDP: func(b []byte) (n int, md sockmeta.Metadata, err error) {
			n, err = c.Read(b)
			return n, md, err
		},
		readTCP: func(b []byte) (n int, md sockmeta.Metadata, err error) {
			tc, err := l.Accept()
			if err != nil {
				return 0, md, err
			}
			defer tc.Close()
			n, err = tc.Read(b)
			return n, md, err
		},
	}, nil
}

// TestInherit has a process leave sockets that opted in to one that it executes, which
// reads metadata from them, also when the first has been killed.
func TestInherit(t *testing.T) {
	testutil.RequireRoot(t)
	good := fmt.Sprintf("%d <nil>", inheritService)
	for _, tt := range []struct {
		name, child string
		// agent says that this process attaches, and not the one that opens
		// the sockets.
		agent, unprivileged, kill bool
		want                      string
	}{
		{"agent", "bequeath", true, true, false, good},
		{"agent, parent killed", "bequeath", true, true, true, good},
		{"agent, privileged", "bequeath", true, false, true, good},
		{"parent attached", "bequeath", false, false, false, good},
		// The heir holds the programs, where it may.
		{"parent attached, killed", "bequeath", false, false, true, good},
		{"parent attached, killed, heir unprivileged", "bequeathToNobody", false, false, true, "0 metadata"},
		{"plain", "bequeathToPlain", true, true, true, "0 <nil>"},
	} {
		if testing.Short() && !tt.kill {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			testutil.Leaks(t)
			p := testutil.Pair(t)
			bareCgroup(t)
			if tt.agent {
				a, err := bpf.Attach(bpf.Options{})
				must(t, err)
				defer a.Close()
			}
			attachProducer(t, p, bpf.ProducerOptions{Services: map[uint16]uint32{inheritPort: inheritService}})
			heir := startHeir(t, tt.child, testutil.ChildOptions{Netns: p.Server}, tt.unprivileged)
			if tt.kill {
				heir.killParent(t)
			}
			to := netip.AddrPortFrom(p.ServerAddr4, inheritPort)
			for i := range 3 {
				payload := fmt.Sprintf("datagram %d", i)
				client := dialUDP(t, p.Client, nil, net.UDPAddrFromAddrPort(to))
				send(t, client, payload)
				heir.expect(t, 'u', payload, tt.want)

				payload = fmt.Sprintf("stream %d", i)
				must(t, p.Client.Do(func() error {
					c, err := net.DialTimeout("tcp4", to.String(), udpPatience)
					if err != nil {
						return err
					}
					t.Cleanup(func() { _ = c.Close() })
					_, err = io.WriteString(c, payload)
					return err
				}))
				heir.expect(t, 't', payload, tt.want)
			}
		})
	}
}

// An heir is a process that runs inherit, and its parent.
type heir struct {
	control, kill *os.File
	answers       *bufio.Reader
	parent        chan error
}

func startHeir(t *testing.T, child string, opts testutil.ChildOptions, unprivileged bool) *heir {
	t.Helper()
	pipe := func() (r, w *os.File) {
		r, w, err := os.Pipe()
		must(t, err)
		return r, w
	}
	orders, control := pipe()
	answers, answer := pipe()
	death, kill := pipe()
	opts.Files = []*os.File{orders, answer, death}
	if unprivileged {
		opts.UID, opts.GID, opts.NoNewPrivs = nobody, nobody, true
	}
	h := &heir{control: control, kill: kill, answers: bufio.NewReader(answers), parent: make(chan error, 1)}
	go func() {
		out, err := testutil.RunChild(t, child, opts)
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		// The heir holds them, too.
		for _, f := range opts.Files {
			_ = f.Close()
		}
		h.parent <- err
		close(h.parent)
	}()
	t.Cleanup(func() {
		_ = control.Close()
		_ = kill.Close()
		<-h.parent
		// The heir has ended when nobody can answer any more.
		_, _ = io.Copy(io.Discard, answers)
		_ = answers.Close()
	})
	must(t, answers.SetReadDeadline(time.Now().Add(4*udpPatience)))
	if line := h.line(t); line != "ready" {
		t.Fatalf("the heir says %q", line)
	}
	return h
}

func (h *heir) line(t *testing.T) string {
	t.Helper()
	line, err := h.answers.ReadString('\n')
	if err != nil {
		t.Fatalf("the heir says nothing: %v", err)
	}
	return strings.TrimSuffix(line, "\n")
}

func (h *heir) killParent(t *testing.T) {
	t.Helper()
	must1(t)(h.kill.Write([]byte{1}))
	if err := <-h.parent; err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("the parent ended with %v", err)
	}
}

// expect has the heir read, which has to get the payload and what want says of the
// metadata.
func (h *heir) expect(t *testing.T, which byte, payload, want string) {
	t.Helper()
	must1(t)(h.control.Write([]byte{which}))
	got := h.line(t)
	rest, ok := strings.CutPrefix(got, fmt.Sprintf("%q ", payload))
	if !ok || !strings.Contains(rest, want) {
		t.Errorf("read %s, want %q %s", got, payload, want)
	}
}

// TestActivation wraps sockets that came from a process in another cgroup, as those of
// systemd's socket units do: they are that cgroup's, and it is its programs that count.
func TestActivation(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	ns := testutil.Namespace(t)
	outer := testutil.EnterCgroup(t)
	// open is the manager: it knows nothing of sockmeta.
	open := func() (udp *net.UDPConn, tcp *net.TCPListener) {
		must(t, ns.Do(func() (err error) {
			if udp, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
				return err
			}
			var lc net.ListenConfig
			lc.SetMultipathTCP(false)
			l, err := lc.Listen(t.Context(), "tcp4", "127.0.0.1:0")
			if err == nil {
				tcp = l.(*net.TCPListener)
			}
			return err
		}))
		t.Cleanup(func() { _ = udp.Close(); _ = tcp.Close() })
		return udp, tcp
	}
	udp, tcp := open()
	inner := testutil.EnterCgroup(t)
	a, err := bpf.Attach(bpf.Options{Cgroup: inner.Path()})
	must(t, err)
	defer a.Close()

	for what, err := range map[string]error{
		"UDP": sockmeta.WrapUDP(udp).Support().Err(),
		"TCP": conn.NewTCPListener(tcp).Support().Err(),
	} {
		if !errors.Is(err, sockmeta.ErrNotSupported) || !strings.Contains(err.Error(), "made in another cgroup") {
			t.Errorf("%s: %v", what, err)
		}
	}
	above, err := bpf.Attach(bpf.Options{Cgroup: outer.Path()})
	must(t, err)
	defer above.Close()
	c := sockmeta.WrapUDP(udp)
	must(t, c.Support().Err())
	must(t, c.SetReadDeadline(time.Now().Add(udpPatience)))
	send(t, dialUDP(t, ns, nil, c.LocalAddr().(*net.UDPAddr)), "payload")
	var md sockmeta.Metadata
	if _, _, err := c.ReadMetadata(make([]byte, 64), &md); err != nil {
		t.Error(err)
	}
	must(t, ns.Do(func() error { return wantLoopback(&md) }))
	must(t, conn.NewTCPListener(tcp).Support().Err())
}

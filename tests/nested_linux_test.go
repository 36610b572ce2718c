// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/internal/abi"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

func init() { children["nestedPeer"] = nestedPeer }

// nestedDatagrams is how many are exchanged to see who has the socket.
const nestedDatagrams = 20

// nested is a socket of each kind, and what it has been wrapped in: the last wrapper
// is the newest.
type nested struct {
	udp  []*sockmeta.UDPConn
	in   []*sockmeta.TCPConn
	out  *sockmeta.TCPConn
	l    *sockmeta.TCPListener
	next uint32
}

func (s *nested) open() error {
	u, err := sockmeta.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	if s.l, err = sockmeta.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
		return err
	}
	if s.out, err = sockmeta.DialTCP("tcp4", nil, s.l.Addr().(*net.TCPAddr)); err != nil {
		return err
	}
	in, err := s.l.AcceptTCP()
	s.udp, s.in = append(s.udp, u), append(s.in, in)
	return err
}

func (s *nested) close() {
	for _, c := range []io.Closer{s.udp[0], s.in[0], s.out, s.l} {
		_ = c.Close()
	}
}

// wrap wraps the sockets anew.
func (s *nested) wrap() error {
	s.udp = append(s.udp, sockmeta.WrapUDP(s.udp[0].NetConn().(*net.UDPConn)))
	s.in = append(s.in, sockmeta.WrapTCP(s.in[0].NetConn().(*net.TCPConn)))
	return nil
}

// works exchanges metadata by a wrapper: in both directions, one by one and in batches,
// and of a connection.
func (s *nested) works(i int) error {
	u := s.udp[i]
	if err := u.Support().Err(); err != nil {
		return err
	}
	if want := os.Geteuid() == 0; u.Support().Mapped != want && u.Support().Tier != sockmeta.TierNative {
		return fmt.Errorf("%v, want mapped %v", u.Support(), want)
	}
	to := u.LocalAddr().(*net.UDPAddr).AddrPort()
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	if err := u.SetDeadline(time.Now().Add(udpPatience)); err != nil {
		return err
	}
	b := make([]byte, 16)
	for range nestedDatagrams {
		var md, got sockmeta.Metadata
		priority := s.next%6 + 1
		s.next++
		md.SetPriority(priority)
		if _, err := u.WriteMetadata([]byte("payload"), &md, to); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		if _, _, err := u.ReadMetadata(b, &got); err != nil {
			return fmt.Errorf("read: %w", err)
		}
		if p, _ := got.Priority(); p != priority {
			return fmt.Errorf("priority %d, want %d", p, priority)
		}
	}
	ms := make([]sockmeta.Message, 6)
	for i := range ms {
		ms[i].Buf, ms[i].Addr = []byte("payload"), to
		ms[i].Metadata.SetPriority(uint32(i + 1))
	}
	if n, err := u.WriteBatchMetadata(ms, 0); err != nil || n != len(ms) {
		return fmt.Errorf("batch: %d, %w", n, err)
	}
	for i := range ms {
		if ms[i].Err != nil {
			return fmt.Errorf("write in batch: %w", ms[i].Err)
		}
	}
	for read := 0; read < len(ms); {
		n, err := u.ReadBatchMetadata(ms[read:], 0)
		if err != nil {
			return err
		}
		for i := range ms[read : read+n] {
			m := &ms[read+i]
			if p, _ := m.Metadata.Priority(); m.Err != nil || p != uint32(read+i+1) {
				return fmt.Errorf("batch: priority %d, %w", p, m.Err)
			}
		}
		read += n
	}
	return s.streams(i)
}

func (s *nested) streams(i int) error {
	var md sockmeta.Metadata
	md.SetPriority(s.next%6 + 1)
	if err := s.in[i].SetMetadata(&md); err != nil {
		return fmt.Errorf("connection: %w", err)
	}
	for _, way := range [][2]*sockmeta.TCPConn{{s.out, s.in[i]}, {s.in[i], s.out}} {
		if _, err := way[0].Write([]byte("x")); err != nil {
			return err
		}
		if err := way[1].SetReadDeadline(time.Now().Add(udpPatience)); err != nil {
			return err
		}
		if _, err := way[1].Read(make([]byte, 1)); err != nil {
			return err
		}
	}
	if _, err := s.in[i].Metadata(); err != nil {
		return fmt.Errorf("read from the connection: %w", err)
	}
	return nil
}

// gone wants all calls by a wrapper to say that its programs are not there, whatever
// others are, and payload to come through.
func (s *nested) gone(i int) error {
	u := s.udp[i]
	detached := func(what string, err error) error {
		if errors.Is(err, sockmeta.ErrNotSupported) && !errors.Is(err, sockmeta.ErrOverrun) && strings.Contains(err.Error(), "detached") {
			return nil
		}
		return fmt.Errorf("%s: %w, want detached", what, err)
	}
	errs := []error{detached("support", u.Support().Err()), detached("connection", s.in[i].Support().Err())}
	to := u.LocalAddr().(*net.UDPAddr).AddrPort()
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	var md, got sockmeta.Metadata
	md.SetPriority(3)
	b := make([]byte, 16)
	// Senders notice after a while.
	var sent error
	for end := time.Now().Add(udpPatience); sent == nil && time.Now().Before(end); {
		if err := u.SetDeadline(end); err != nil {
			return err
		}
		var n int
		if n, sent = u.WriteMetadata([]byte("payload"), &md, to); n != 7 {
			return fmt.Errorf("sent %d bytes: %w", n, sent)
		}
		n, _, err := u.ReadMetadata(b, &got)
		if have := s.newest(); err == nil && have.Err() == nil && (!have.Mapped || have.Tier == sockmeta.TierNative) {
			// The kernel answers for the socket's own datagrams, whoever asks, and
			// the native tier's records come with them.
			err = sockmeta.ErrNoMetadata
		}
		if n != 7 || !sockmeta.IsMetadataError(err) || errors.Is(err, sockmeta.ErrOverrun) {
			return fmt.Errorf("read %d bytes: %w", n, err)
		}
	}
	errs = append(errs, detached("write", sent))
	if _, err := u.Metadata(); err != nil {
		errs = append(errs, detached("metadata", err))
	}
	if _, err := s.in[i].Metadata(); !s.reopened() {
		errs = append(errs, detached("read from the connection", err))
	}
	return errors.Join(errs...)
}

// newest is what the newest wrapper has.
func (s *nested) newest() sockmeta.Support { return s.udp[len(s.udp)-1].Support() }

// reopened says whether the newest wrapper has the sockets for other programs: what
// TCP keeps for a connection is any wrapper's then.
func (s *nested) reopened() bool { return s.newest().Err() == nil }

func (s *nested) do(command string) error {
	var i int
	name, arg, _ := strings.Cut(command, " ")
	if arg != "" {
		if _, err := fmt.Sscan(arg, &i); err != nil {
			return err
		}
	}
	switch name {
	case "open":
		return s.open()
	case "wrap":
		return s.wrap()
	case "works":
		return s.works(i)
	case "gone":
		return s.gone(i)
	}
	return fmt.Errorf("no command %q", command)
}

// nestedPeer does what it is told, without privileges: it asks the kernel for each
// record.
func nestedPeer() error {
	in, out := bufio.NewScanner(testutil.ChildFile(0)), json.NewEncoder(testutil.ChildFile(1))
	var s nested
	for in.Scan() {
		answer := ""
		if err := s.do(in.Text()); err != nil {
			answer = err.Error()
		}
		if err := out.Encode(answer); err != nil {
			return err
		}
	}
	return in.Err()
}

// nestedLab is a slice with a service in it, and a container in that: three cgroups,
// the process being in the innermost.
type nestedLab struct {
	cgroups [3]string
	at      [3]*bpf.Attachment
	do      func(command string) error
	end     func()
}

// The levels of nestedLab.
const (
	slice = iota
	service
	container
)

func newNestedLab(t *testing.T, mapped bool) *nestedLab {
	t.Helper()
	lab := new(nestedLab)
	ns := testutil.Namespace(t)
	for i := range lab.cgroups {
		lab.cgroups[i] = testutil.EnterCgroup(t).Path()
	}
	t.Cleanup(func() {
		for _, a := range lab.at {
			if a != nil {
				_ = a.Close()
			}
		}
	})
	if mapped {
		s := new(nested)
		lab.do = func(command string) (err error) {
			must(t, ns.Do(func() error {
				err = s.do(command)
				return nil
			}))
			return err
		}
		lab.end = func() {
			if s.udp != nil {
				s.close()
			}
		}
		return lab
	}
	lab.startPeer(t, ns)
	return lab
}

func (lab *nestedLab) startPeer(t *testing.T, ns *netlab.Namespace) {
	t.Helper()
	childIn, commands, err := os.Pipe()
	must(t, err)
	answers, childOut, err := os.Pipe()
	must(t, err)
	done := make(chan error, 1)
	go func() {
		out, err := testutil.RunChild(t, "nestedPeer", testutil.ChildOptions{
			UID: nobody, GID: nobody, NoNewPrivs: true, Netns: ns, Files: []*os.File{childIn, childOut},
		})
		_, _ = childIn.Close(), childOut.Close()
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, out)
		}
		done <- err
	}()
	lab.end = func() {
		_ = commands.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = answers.Close()
	}
	decoder := json.NewDecoder(answers)
	lab.do = func(command string) error {
		if _, err := fmt.Fprintln(commands, command); err != nil {
			t.Fatal(err)
		}
		var answer string
		if err := decoder.Decode(&answer); err != nil {
			t.Fatal(err)
		}
		if answer != "" {
			return errors.New(answer)
		}
		return nil
	}
}

func (lab *nestedLab) attach(t *testing.T, level int) {
	t.Helper()
	var err error
	lab.at[level], err = bpf.Attach(bpf.Options{Cgroup: lab.cgroups[level], Private: true})
	must(t, err)
}

func (lab *nestedLab) leave(t *testing.T, level int) {
	t.Helper()
	must(t, lab.at[level].Close())
	lab.at[level] = nil
}

func (lab *nestedLab) want(t *testing.T, commands ...string) {
	t.Helper()
	for _, c := range commands {
		if err := lab.do(c); err != nil {
			t.Fatalf("%s: %v", c, err)
		}
	}
}

// TestLetInNested has attachments of a cgroup and of those above it come and go: a
// socket belongs to the one that it opted in to, whatever the others do.
func TestLetInNested(t *testing.T) {
	testutil.RequireRoot(t)
	for name, run := range map[string]func(t *testing.T, lab *nestedLab){
		"parent first, child leaves": func(t *testing.T, lab *nestedLab) {
			lab.attach(t, slice)
			lab.want(t, "open", "works 0")
			lab.attach(t, container)
			lab.want(t, "works 0", "wrap", "works 0", "works 1")
			lab.leave(t, container)
			lab.want(t, "works 0", "works 1")
		},
		"parent first, parent leaves": func(t *testing.T, lab *nestedLab) {
			lab.attach(t, slice)
			lab.want(t, "open", "works 0")
			lab.attach(t, container)
			lab.want(t, "wrap", "works 0", "works 1")
			lab.leave(t, slice)
			lab.want(t, "gone 0", "gone 1", "wrap", "works 2", "gone 0", "works 2")
			lab.attach(t, slice)
			lab.want(t, "works 2", "gone 0", "wrap", "works 3")
		},
		"child first, parent leaves": func(t *testing.T, lab *nestedLab) {
			lab.attach(t, container)
			lab.want(t, "open", "works 0")
			lab.attach(t, slice)
			lab.want(t, "works 0", "wrap", "works 0", "works 1")
			lab.leave(t, slice)
			lab.want(t, "works 0", "works 1")
		},
		"child first, child leaves": func(t *testing.T, lab *nestedLab) {
			lab.attach(t, container)
			lab.want(t, "open", "works 0")
			lab.attach(t, slice)
			lab.want(t, "wrap", "works 0", "works 1")
			lab.leave(t, container)
			lab.want(t, "gone 0", "gone 1", "wrap", "works 2")
			lab.attach(t, container)
			lab.want(t, "works 2", "wrap", "works 3", "works 2", "gone 0")
		},
		"siblings": func(t *testing.T, lab *nestedLab) {
			lab.attach(t, container)
			first := lab.at[container]
			lab.want(t, "open", "works 0")
			lab.attach(t, container)
			lab.want(t, "works 0", "wrap", "works 0", "works 1")
			must(t, first.Close())
			lab.want(t, "gone 0", "gone 1", "wrap", "works 2")
		},
		"three levels": func(t *testing.T, lab *nestedLab) {
			lab.attach(t, service)
			lab.want(t, "open", "works 0")
			lab.attach(t, slice)
			lab.attach(t, container)
			lab.want(t, "wrap", "works 0", "works 1")
			lab.leave(t, slice)
			lab.leave(t, container)
			lab.want(t, "works 0", "works 1")
			lab.attach(t, container)
			lab.attach(t, slice)
			lab.leave(t, service)
			lab.want(t, "gone 0", "wrap", "works 2")
			lab.leave(t, container)
			lab.want(t, "gone 0", "gone 2", "wrap", "works 3")
			lab.leave(t, slice)
			lab.want(t, "gone 3")
		},
	} {
		for _, mapped := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, mapped %v", name, mapped), func(t *testing.T) {
				testutil.Leaks(t)
				lab := newNestedLab(t, mapped)
				defer lab.end()
				run(t, lab)
			})
		}
	}
}

// TestLetInNestedGRO has datagrams that the kernel merges, read one by one.
func TestLetInNestedGRO(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	ns := testutil.Namespace(t)
	outer, inner := testutil.EnterCgroup(t), testutil.EnterCgroup(t)
	a, err := bpf.Attach(bpf.Options{Cgroup: outer.Path(), Private: true})
	must(t, err)
	defer a.Close()
	var c *sockmeta.UDPConn
	must(t, ns.Do(func() (err error) {
		c, err = sockmeta.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		return err
	}))
	defer c.Close()
	must(t, c.SetGRO(sockmeta.SegmentsSplit))
	b, err := bpf.Attach(bpf.Options{Cgroup: inner.Path(), Private: true})
	must(t, err)
	defer b.Close()
	w := sockmeta.WrapUDP(c.NetConn().(*net.UDPConn))
	must(t, w.Support().Err())
	to := c.LocalAddr().(*net.UDPAddr).AddrPort()
	ms := []sockmeta.Message{{Buf: []byte("aabb"), Addr: netip.AddrPortFrom(to.Addr().Unmap(), to.Port()), SegmentSize: 2}}
	ms[0].Metadata.SetPriority(5)
	if n, err := c.WriteBatchMetadata(ms, 0); n != 1 || err != nil || ms[0].Err != nil {
		t.Fatal(n, err, ms[0].Err)
	}
	must(t, c.SetReadDeadline(time.Now().Add(udpPatience)))
	for _, want := range []string{"aa", "bb"} {
		var md sockmeta.Metadata
		buf := make([]byte, 8)
		n, _, err := c.ReadMetadata(buf, &md)
		if p, _ := md.Priority(); err != nil || string(buf[:n]) != want || p != 5 {
			t.Errorf("%q, priority %d, %v", buf[:n], p, err)
		}
	}
}

// TestLetInNestedOption opts a socket in again, below an attachment that came later: it
// stays where it is.
func TestLetInNestedOption(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	ns := testutil.Namespace(t)
	outer, inner := testutil.EnterCgroup(t), testutil.EnterCgroup(t)
	a, err := bpf.Attach(bpf.Options{Cgroup: outer.Path(), Private: true})
	must(t, err)
	defer a.Close()
	fd := -1
	must(t, ns.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return err
	}))
	defer unix.Close(fd)
	must(t, bpf.EnableSocket(fd, 0))
	info, err := bpf.SocketInfo(fd)
	must(t, err)
	b, err := bpf.Attach(bpf.Options{Cgroup: inner.Path(), Private: true})
	must(t, err)
	defer b.Close()
	for range 2 {
		must(t, bpf.EnableSocket(fd, 0))
		if again, err := bpf.SocketInfo(fd); err != nil || again.Instance != info.Instance || info.Instance != a.Info().Instance {
			t.Errorf("%+v, %v, want %+v", again, err, info)
		}
	}
	if s, err := b.Sockets(); err != nil || s.Now != 0 {
		t.Errorf("%+v, %v", s, err)
	}
	if err := bpf.EnableSocketOf(fd, 0, b.Info().Instance+1); !errors.Is(err, sockmeta.ErrNotSupported) {
		t.Error(err)
	}
}

// TestLetInNestedForged has datagrams come with made-up handles to a socket of one
// attachment, below or above another: they have the records that they have without.
func TestLetInNestedForged(t *testing.T) {
	testutil.RequireRoot(t)
	for _, order := range []string{"outer first", "inner first"} {
		t.Run(order, func(t *testing.T) {
			testutil.Leaks(t)
			cgroups := []string{testutil.EnterCgroup(t).Path(), testutil.EnterCgroup(t).Path()}
			if order == "inner first" {
				cgroups[0], cgroups[1] = cgroups[1], cgroups[0]
			}
			a, err := bpf.Attach(bpf.Options{Cgroup: cgroups[0], Private: true})
			must(t, err)
			defer a.Close()
			p := testutil.Pair(t)
			f, c, err := newForger(p)
			must(t, err)
			defer f.Close()
			defer c.Close()
			other, err := bpf.Attach(bpf.Options{Cgroup: cgroups[1], Private: true})
			must(t, err)
			defer other.Close()
			index, err := netlab.Index(p.Client, p.ClientIf)
			must(t, err)
			for _, forged := range []uint64{abi.HandleBit, abi.HandleBit | 1<<24, 1<<62 - 1, 1<<63 | abi.HandleBit} {
				must(t, f.send("forged", forged))
				var md sockmeta.Metadata
				if _, _, err := c.ReadMetadata(make([]byte, 10), &md); err != nil {
					t.Errorf("%#x: %v", forged, err)
				} else if got, _ := md.IfIndex(); got != index {
					t.Errorf("%#x: %v, want one of interface %d", forged, &md, index)
				}
			}
		})
	}
}

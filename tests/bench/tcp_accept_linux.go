// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// accepted is what the acceptor answers to a connection whose service id is right.
const accepted = 'y'

// tcpAccept compares servers of connections: one that knows nothing of them, one
// that reads the metadata of their SYN, and one that reads a PROXY v2 header. All of
// a connection is timed, the handshake too: client and server share a CPU, so that
// no work hides behind other work.
func tcpAccept(m *meter) ([]Row, error) {
	l, err := m.produced()
	if err != nil {
		return nil, err
	}
	program, remove, err := buildAcceptor()
	if err != nil {
		return nil, err
	}
	m.atEnd(remove)
	client, err := startWorker(m.cpus.reader)
	if err != nil {
		return nil, err
	}
	m.atEnd(client.stop)
	err = client.do(func() error {
		return os.NewSyscallError("setns", unix.Setns(int(l.Client.File().Fd()), unix.CLONE_NEWNET))
	})
	if err != nil {
		return nil, err
	}
	var contenders []contender
	for _, side := range []struct {
		kind  string
		first []byte
	}{{"plain", nil}, {"sockmeta", nil}, {"proxy", proxyHeader(l.ClientAddr4, l.ServerAddr4)}} {
		// Each has an address of its own, so that all have the port of the service.
		c, err := l.accepting(client, program, side.kind, side.first)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", side.kind, err)
		}
		contenders = append(contenders, c)
	}
	s, err := m.compare(10, contenders...)
	if err != nil {
		return nil, err
	}
	const what = "TCP accept + OpeningMetadata, connections/s"
	return []Row{
		s.faster("tcp-accept/plain", what, "net.Listener", atLeast(0.97), "sockmeta", "plain"),
		s.faster("tcp-accept/proxy", what, "go-proxyproto, PROXY v2", atLeast(1), "sockmeta", "proxy"),
	}, nil
}

// buildAcceptor builds the server, which is a module of its own, and returns where it
// is and what removes it.
func buildAcceptor() (program string, remove func() error, err error) {
	root, err := moduleRoot()
	if err != nil {
		return "", nil, err
	}
	dir, err := os.MkdirTemp("", "acceptor")
	if err != nil {
		return "", nil, err
	}
	remove = func() error { return os.RemoveAll(dir) }
	program = filepath.Join(dir, "acceptor")
	cmd := exec.Command("go", "build", "-o", program, ".")
	cmd.Dir = filepath.Join(root, "tests", "bench", "acceptor")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", nil, errors.Join(fmt.Errorf("%v: %w: %s", cmd, err, out), remove())
	}
	return program, remove, nil
}

// moduleRoot is the directory of the module that the process was started in.
func moduleRoot() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	mod := strings.TrimSpace(string(out))
	if mod == "" || mod == os.DevNull {
		return "", errors.New("not in the module: start in the repository")
	}
	return filepath.Dir(mod), nil
}

// accepting starts an acceptor of a kind at an address of its own, and
// returns a contender that has the client connect to it.
func (l *lab) accepting(client *worker, program, kind string, first []byte) (contender, error) {
	addr, err := l.extraAddress()
	if err != nil {
		return contender{}, err
	}
	to := netip.AddrPortFrom(addr, servicePort)
	var listener interface{ File() (*os.File, error) }
	if kind == "sockmeta" {
		listener, err = l.listenTCP(to.String())
	} else {
		listener, err = l.plainListenTCP(nil, to.String())
	}
	if err != nil {
		return contender{}, err
	}
	if err := l.m.startAcceptor(program, kind, listener); err != nil {
		return contender{}, err
	}
	request := append(first, '?')
	socks := make([]int, 0, batchSize)
	return contender{name: kind, batch: func() error {
		socks = socks[:0]
		defer func() {
			for _, fd := range socks {
				_ = unix.Close(fd)
			}
		}()
		return client.do(func() error { return exchange(&socks, to, request) })
	}}, nil
}

// startAcceptor runs the server on the reader's CPU until the case ends.
func (m *meter) startAcceptor(program, kind string, listener interface{ File() (*os.File, error) }) error {
	f, err := listener.File()
	if err != nil {
		return err
	}
	defer f.Close()
	cmd := exec.Command(program, "-kind", kind, "-service", strconv.Itoa(service))
	cmd.ExtraFiles = []*os.File{f}
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	// The child has the affinity of the thread that starts it.
	err = onCPU(m.cpus.reader, cmd.Start)
	if err != nil {
		return err
	}
	m.atEnd(func() error {
		if err := in.Close(); err != nil {
			return err
		}
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("%v: %w: %s", cmd, err, stderr.Bytes())
		}
		return nil
	})
	return nil
}

// exchange opens a batch of connections, sends a request on each and reads the
// answers. It is to be called on a thread in the client's namespace.
func exchange(socks *[]int, to netip.AddrPort, request []byte) error {
	addr := &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
	for range batchSize {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		*socks = append(*socks, fd)
		if err := unix.Connect(fd, addr); err != nil {
			return os.NewSyscallError("connect", err)
		}
		if _, err := unix.Write(fd, request); err != nil {
			return os.NewSyscallError("write", err)
		}
	}
	for _, fd := range *socks {
		if err := answered(fd); err != nil {
			return err
		}
	}
	return nil
}

func answered(fd int) error {
	limit := unix.NsecToTimeval((10 * time.Second).Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	var b [1]byte
	n, err := unix.Read(fd, b[:])
	switch {
	case err != nil:
		return os.NewSyscallError("read", err)
	case n == 0:
		return io.ErrUnexpectedEOF
	case b[0] != accepted:
		return errors.New("the connection's service id is not known")
	}
	// No TIME_WAIT: there are more connections than ports.
	reset := unix.Linger{Onoff: 1}
	return os.NewSyscallError("setsockopt", unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &reset))
}

// proxyHeader is what a load balancer sends first on a connection (PROXY protocol
// version 2, section 2.2 of its specification), with the service id as the first of
// the TLVs that it leaves to applications.
func proxyHeader(src, dst netip.Addr) []byte {
	const tcp4, typeService = 0x11, 0xE0
	b := []byte("\r\n\r\n\x00\r\nQUIT\n\x21")
	b = append(b, tcp4)
	var rest []byte
	rest = append(append(rest, src.AsSlice()...), dst.AsSlice()...)
	rest = binary.BigEndian.AppendUint16(rest, 40000)
	rest = binary.BigEndian.AppendUint16(rest, servicePort)
	rest = binary.BigEndian.AppendUint16(append(rest, typeService), 4)
	rest = binary.BigEndian.AppendUint32(rest, service)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(rest))), rest...)
}

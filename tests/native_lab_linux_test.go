// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/abi"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testprog"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
)

// A nativeLab is a pair of hosts. The server's sockets are raw descriptors that get
// records as control messages, made by the kernel.
type nativeLab struct {
	*netlab.Pair
	t       testing.TB
	a       *bpf.Attachment
	ifindex int
}

// attachNative attaches to the cgroup of the test process. Where the kernel has no
// native tier the test is skipped, unless the kernel module is loaded, and so it is
// where the attachments of other tests, which end with the process, leave no room for
// all of it.
func attachNative(t testing.TB, opts bpf.Options) *bpf.Attachment {
	t.Helper()
	testutil.EnterCgroup(t)
	a, err := bpf.Attach(opts)
	must(t, err)
	t.Cleanup(func() { _ = a.Close() })
	if a.Info().Features&abi.FeatureNative == 0 {
		if native() {
			t.Fatal("the kernel module is loaded: ", a.Native())
		}
		t.Skip(a.Native())
	}
	if a.Info().Features&abi.FeatureFaultIn == 0 {
		t.Skip("this process has attached too often: run TestNative alone")
	}
	return a
}

func newNativeLab(t testing.TB) *nativeLab {
	t.Helper()
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	lab := &nativeLab{Pair: testutil.Pair(t), t: t}
	lab.a = attachNative(t, bpf.Options{})
	must(t, lab.Server.Do(func() error {
		ifi, err := net.InterfaceByName(lab.ServerIf)
		if err == nil {
			lab.ifindex = ifi.Index
		}
		return err
	}))
	return lab
}

// openFD makes a blocking socket of a kind, whose reads give up. It has not opted in.
func (lab *nativeLab) openFD(k udpKind) int {
	lab.t.Helper()
	domain := unix.AF_INET6
	if k.network == "udp4" {
		domain = unix.AF_INET
	}
	var fd int
	must(lab.t, lab.Server.Do(func() (err error) {
		fd, err = unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return os.NewSyscallError("socket", err)
	}))
	lab.t.Cleanup(func() { _ = unix.Close(fd) })
	patience := unix.NsecToTimeval(int64(udpPatience))
	must(lab.t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience))
	must(lab.t, unix.Bind(fd, socketAddr(domain, netip.AddrPortFrom(k.listen, serverPort))))
	if k.connected {
		must(lab.t, unix.Connect(fd, socketAddr(domain, netip.AddrPortFrom(k.client, clientPort))))
	}
	return fd
}

// open is openFD for a socket that gets records.
func (lab *nativeLab) open(k udpKind) int {
	lab.t.Helper()
	fd := lab.openFD(k)
	must(lab.t, bpf.EnableSocketCmsg(fd, 0))
	return fd
}

func socketAddr(domain int, a netip.AddrPort) unix.Sockaddr {
	if domain == unix.AF_INET {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

// A datagram is what recvmsg gave.
type datagram struct {
	payload, oob []byte
	flags        int
	namelen      int
}

// recvmsg receives into control, which may be any memory. The address is asked for
// where name is set.
func recvmsg(fd int, control unsafe.Pointer, controllen int, name bool, flags int) (datagram, error) {
	b, addr := make([]byte, 64<<10), make([]byte, unix.SizeofSockaddrAny)
	iov := unix.Iovec{Base: &b[0]}
	iov.SetLen(len(b))
	msg := unix.Msghdr{Iov: &iov, Control: (*byte)(control)}
	msg.SetIovlen(1)
	msg.SetControllen(controllen)
	if name {
		msg.Name, msg.Namelen = &addr[0], uint32(len(addr))
	}
	for {
		n, _, errno := unix.Syscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&msg)), uintptr(flags))
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return datagram{}, os.NewSyscallError("recvmsg", errno)
		}
		r := datagram{payload: b[:n], flags: int(msg.Flags), namelen: int(msg.Namelen)}
		if msg.Controllen > 0 {
			r.oob = append(r.oob, unsafe.Slice((*byte)(control), msg.Controllen)...)
		}
		return r, nil
	}
}

// receiveFrom receives with room for all control messages.
func receiveFrom(fd int, name bool, flags int) (datagram, error) {
	oob := make([]byte, 1024)
	// Where abi.FeatureFaultIn is missing, nobody else sees to its pages.
	oob[0], oob[len(oob)-1] = 0, 0
	r, err := recvmsg(fd, unsafe.Pointer(&oob[0]), len(oob), name, flags)
	runtime.KeepAlive(oob)
	return r, err
}

// wantRecord checks that there is one record, and that it is the datagram's own.
func (lab *nativeLab) wantRecord(t testing.TB, payload, oob []byte) (md cmsg.Metadata) {
	t.Helper()
	ok, err := cmsg.FindMetadata(oob, &md)
	if err != nil || !ok {
		t.Fatalf("control messages %x: record %v, %v", oob, ok, err)
	}
	records := 0
	for m := range cmsg.All(oob) {
		if m.Level == cmsg.SOL_BPF {
			records++
		}
	}
	if records != 1 {
		t.Errorf("%d records", records)
	}
	wantNumbered(t, payload, &md)
	if i, ok := md.IfIndex(); !ok || i != lab.ifindex {
		t.Errorf("interface is %d, %v, want %d", i, ok, lab.ifindex)
	}
	if mark, ok := md.Mark(); !ok || mark != 0 {
		t.Errorf("mark is %#x, %v", mark, ok)
	}
	if _, ok := md.Priority(); !ok {
		t.Error("no priority")
	}
	return md
}

// got checks what was received: the datagram with that number, and its record.
func (lab *nativeLab) got(t testing.TB, r datagram, err error, id uint64) cmsg.Metadata {
	t.Helper()
	must(t, err)
	if string(r.payload) != numbered(id) {
		t.Fatalf("payload is %x, want that of %d", r.payload, id)
	}
	if r.flags != 0 {
		t.Errorf("flags are %#x", r.flags)
	}
	md := lab.wantRecord(t, r.payload, r.oob)
	if md.Flags() != 0 {
		t.Errorf("record has flags %v", md.Flags())
	}
	return md
}

// idOf is the number that a payload begins with.
func idOf(payload []byte) uint64 {
	if len(payload) < 8 {
		return 0
	}
	return binary.NativeEndian.Uint64(payload)
}

var errNoRecord = errors.New("no record")

// recordID returns the number in the record among control messages.
func recordID(oob []byte) (uint64, error) {
	var md cmsg.Metadata
	ok, err := cmsg.FindMetadata(oob, &md)
	if err != nil {
		return 0, err
	}
	id, has := md.Uint64(testprog.KeyID)
	if !ok || !has {
		return 0, errNoRecord
	}
	return id, nil
}

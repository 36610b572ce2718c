// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/internal/abi"
	"github.com/sockmeta/sockmeta-go/internal/kerneltypes"
)

// A Local lets the metadata of what sockets send through to receivers on the same
// host.
type Local struct {
	of   *Attachment
	link link.Link
	devs *ebpf.Map
	dev  abi.LocalDevice
}

// AttachLocal lets metadata cross an interface that leads to sockets of the same
// host, in the network namespace of the calling thread: loopback, or one end of a
// veth pair, whose other end it has to be called for, too. Sockets that opted in,
// in cgroups that this attachment covers, then find the values that the sender
// gave (Policy.LocalKeys) in what they receive (cmsg.Metadata.Sender).
//
// Packets that take metadata across have a number in place of a delivery time,
// which TCP sets for pacing by fq; interfaces for local traffic have no such
// queueing discipline, and datagrams with a launch time take no metadata across.
// Nor do fragments, packets with IPv6 extension headers and multicast. It ends when
// the Local or the attachment is closed.
//
// It needs Linux 6.11 (delivery times of UDP cross devices) besides what Attach
// needs. The error is ErrNotSupported and says why where it cannot be.
func (a *Attachment) AttachLocal(iface string) (*Local, error) {
	l, err := a.attachLocal(iface)
	if err != nil {
		return nil, fmt.Errorf("sockmeta: attach local to %s: %w", iface, err)
	}
	return l, nil
}

func (a *Attachment) attachLocal(iface string) (_ *Local, err error) {
	if err := toAttach.check(); err != nil {
		return nil, err
	}
	if err := haveDeliveryTimes(kerneltypes.Cache()); err != nil {
		return nil, err
	}
	ifi, err := net.InterfaceByName(iface)
	if err != nil {
		return nil, err
	}
	cookie, err := netnsCookie()
	if err != nil {
		return nil, err
	}
	o, err := openObject()
	if err != nil {
		return nil, err
	}
	shared := make(map[string]*ebpf.Map)
	for _, name := range []string{instanceName, socketsName, localsName, localDevsName, givenName} {
		if shared[name], err = a.mapNamed(name); err != nil {
			return nil, err
		}
	}
	loaded, err := o.load(shared, localProgram)
	if err != nil {
		return nil, explain(fmt.Errorf("load: %w", err))
	}
	prog := loaded[localProgram]
	defer prog.Close()

	end, err := otherEnd(ifi.Index)
	if err != nil {
		return nil, err
	}
	l := &Local{of: a, dev: abi.LocalDevice{Netns: cookie, IfIndex: uint32(ifi.Index)}}
	if l.devs, err = shared[localDevsName].Clone(); err != nil {
		return nil, err
	}
	l.link, err = link.AttachTCX(link.TCXOptions{
		Interface: ifi.Index, Program: prog, Attach: ebpf.AttachTCXIngress,
	})
	if err != nil {
		_ = l.devs.Close()
		return nil, explain(fmt.Errorf("TCX ingress: %w", err))
	}
	if err := l.devs.Put(&l.dev, end); err != nil {
		return nil, errors.Join(explain(fmt.Errorf("map of devices: %w", err)), l.close())
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.maps == nil {
		return nil, errors.Join(errClosed, l.close())
	}
	if a.locals == nil {
		a.locals = make(map[*Local]bool)
	}
	a.locals[l] = true
	return l, nil
}

// Close ends it, which otherwise the attachment's Close does.
func (l *Local) Close() error {
	if l.of == nil {
		return unix.EINVAL
	}
	l.of.mu.Lock()
	defer l.of.mu.Unlock()
	if !l.of.locals[l] {
		return nil
	}
	delete(l.of.locals, l)
	return l.close()
}

func (l *Local) close() error {
	err := l.devs.Delete(&l.dev)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		err = nil
	}
	return errors.Join(err, l.link.Close(), l.devs.Close())
}

// haveDeliveryTimes looks for the type that tells the clocks of delivery times
// apart, which came with those of UDP.
func haveDeliveryTimes(types *btf.Cache) error {
	spec, err := types.Kernel()
	if err != nil {
		return fmt.Errorf("%w: kernel without BTF: %w", ErrNotSupported, err)
	}
	var e *btf.Enum
	if err := spec.TypeByName("skb_tstamp_type", &e); err != nil {
		return fmt.Errorf("%w: delivery times do not cross devices: needs Linux 6.11", ErrNotSupported)
	}
	return nil
}

// otherEnd returns the index of the interface that gets what this one sends: of a
// veth device's peer, in its namespace. It is 0 for the loopback device. Others lead to
// other hosts, or to devices below them.
func otherEnd(index int) (uint32, error) {
	table, err := syscall.NetlinkRIB(unix.RTM_GETLINK, unix.AF_UNSPEC)
	if err != nil {
		return 0, os.NewSyscallError("netlinkrib", err)
	}
	msgs, err := syscall.ParseNetlinkMessage(table)
	if err != nil {
		return 0, os.NewSyscallError("parsenetlinkmessage", err)
	}
	for _, m := range msgs {
		link := (*unix.IfInfomsg)(unsafe.Pointer(&m.Data[0]))
		if m.Header.Type != unix.RTM_NEWLINK || link.Index != int32(index) {
			continue
		}
		if link.Flags&unix.IFF_LOOPBACK != 0 {
			return 0, nil
		}
		attrs, err := syscall.ParseNetlinkRouteAttr(&m)
		if err != nil {
			return 0, os.NewSyscallError("parsenetlinkrouteattr", err)
		}
		var kind string
		var end uint32
		for _, a := range attrs {
			switch {
			case a.Attr.Type == unix.IFLA_LINK && len(a.Value) == 4:
				end = binary.NativeEndian.Uint32(a.Value)
			case a.Attr.Type == unix.IFLA_LINKINFO:
				kind = linkKind(a.Value)
			}
		}
		if kind != "veth" || end == 0 {
			return 0, errors.New("it is neither loopback nor an end of a veth pair: what it receives comes from elsewhere")
		}
		return end, nil
	}
	return 0, unix.ENODEV
}

// linkKind returns the kind in the attributes of an IFLA_LINKINFO.
func linkKind(info []byte) string {
	for len(info) >= unix.SizeofNlAttr {
		n, typ := int(binary.NativeEndian.Uint16(info)), binary.NativeEndian.Uint16(info[2:])
		if n < unix.SizeofNlAttr || n > len(info) {
			break
		}
		if typ == unix.IFLA_INFO_KIND {
			return unix.ByteSliceToString(info[unix.SizeofNlAttr:n])
		}
		info = info[min((n+3)&^3, len(info)):]
	}
	return ""
}

// netnsCookie returns the number of the calling thread's network namespace.
func netnsCookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	return cookie, os.NewSyscallError("getsockopt", err)
}

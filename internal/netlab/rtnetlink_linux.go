// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// request is a netlink message under construction, of rtnetlink mostly.
type request struct {
	buf []byte
}

// newRequest begins a message of the given type. header is the structure that
// the type calls for, such as unix.IfInfomsg.
func newRequest(typ, flags uint16, header any) *request {
	r := new(request)
	r.append(unix.NlMsghdr{Type: typ, Flags: unix.NLM_F_REQUEST | flags, Seq: 1})
	r.append(header)
	return r
}

func (r *request) append(v any) {
	b, err := binary.Append(r.buf, binary.NativeEndian, v)
	if err != nil {
		panic(err)
	}
	r.buf = b
}

func (r *request) bytes(typ uint16, value []byte) {
	r.nest(typ, func() { r.buf = append(r.buf, value...) })
}

func (r *request) string(typ uint16, value string) {
	r.bytes(typ, append([]byte(value), 0))
}

func (r *request) uint16(typ, value uint16) {
	r.bytes(typ, binary.NativeEndian.AppendUint16(nil, value))
}

func (r *request) uint32(typ uint16, value uint32) {
	r.bytes(typ, binary.NativeEndian.AppendUint32(nil, value))
}

// nest adds an attribute whose value is what fill appends.
func (r *request) nest(typ uint16, fill func()) {
	start := len(r.buf)
	r.append(unix.NlAttr{Type: typ})
	fill()
	binary.NativeEndian.PutUint16(r.buf[start:], uint16(len(r.buf)-start))
	for len(r.buf)%unix.NLA_ALIGNTO != 0 {
		r.buf = append(r.buf, 0)
	}
}

// do sends the message from within ns and returns the first reply's payload,
// which is empty for the acknowledgement of a change.
func (r *request) do(ns *Namespace) ([]byte, error) { return r.doBy(ns, unix.NETLINK_ROUTE) }

// doBy is do for other netlink protocols.
func (r *request) doBy(ns *Namespace, protocol int) ([]byte, error) {
	binary.NativeEndian.PutUint32(r.buf, uint32(len(r.buf)))

	var reply []byte
	err := ns.Do(func() (err error) {
		reply, err = exchange(protocol, r.buf)
		return err
	})
	return reply, err
}

// change sends the message as a change to be acknowledged.
func (r *request) change(ns *Namespace) error { return r.changeBy(ns, unix.NETLINK_ROUTE) }

func (r *request) changeBy(ns *Namespace, protocol int) error {
	flags := binary.NativeEndian.Uint16(r.buf[6:])
	binary.NativeEndian.PutUint16(r.buf[6:], flags|unix.NLM_F_ACK)
	_, err := r.doBy(ns, protocol)
	return err
}

func exchange(protocol int, req []byte) ([]byte, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)

	// The kernel answers during sendto, so a reply that isn't there soon
	// is never going to be.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}); err != nil {
		return nil, os.NewSyscallError("setsockopt", err)
	}
	for _, opt := range []int{unix.NETLINK_EXT_ACK, unix.NETLINK_CAP_ACK} {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, opt, 1); err != nil {
			return nil, os.NewSyscallError("setsockopt", err)
		}
	}

	if err := unix.Sendto(fd, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, os.NewSyscallError("sendto", err)
	}
	buf := make([]byte, 32<<10)
	n, err := ignoringEINTR(func() (int, error) {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		return n, err
	})
	if err != nil {
		return nil, os.NewSyscallError("recvfrom", err)
	}
	return parseReply(buf[:n])
}

func ignoringEINTR(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if err != unix.EINTR {
			return n, err
		}
	}
}

var errShort = errors.New("malformed netlink reply")

// parseReply returns the payload of the first message in b, or the error that
// message reports. An acknowledgement has no payload.
func parseReply(b []byte) ([]byte, error) {
	if len(b) < unix.SizeofNlMsghdr {
		return nil, errShort
	}
	size := int(binary.NativeEndian.Uint32(b))
	if size < unix.SizeofNlMsghdr || size > len(b) {
		return nil, errShort
	}
	typ, flags := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint16(b[6:])
	payload := b[unix.SizeofNlMsghdr:size]
	if typ != unix.NLMSG_ERROR {
		return payload, nil
	}

	if len(payload) < unix.SizeofNlMsgerr {
		return nil, errShort
	}
	errno := unix.Errno(-int32(binary.NativeEndian.Uint32(payload)))
	if errno == 0 {
		return nil, nil
	}
	if flags&unix.NLM_F_ACK_TLVS != 0 {
		if msg, ok := attribute(payload[unix.SizeofNlMsgerr:], unix.NLMSGERR_ATTR_MSG); ok {
			return nil, fmt.Errorf("%w (%s)", errno, bytes.TrimRight(msg, "\x00"))
		}
	}
	return nil, errno
}

// attribute returns the value of the first attribute of type typ in b.
func attribute(b []byte, typ uint16) ([]byte, bool) {
	for len(b) >= unix.SizeofNlAttr {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofNlAttr || size > len(b) {
			return nil, false
		}
		if binary.NativeEndian.Uint16(b[2:])&^uint16(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER) == typ {
			return b[unix.SizeofNlAttr:size], true
		}
		b = b[min((size+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1), len(b)):]
	}
	return nil, false
}

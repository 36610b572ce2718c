// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// From linux/fou.h.
const (
	fouCmdAdd    = 1
	fouAttrPort  = 1
	fouAttrAF    = 2
	fouAttrProto = 3
	fouAttrType  = 4

	fouDirect = 1
	fouGUE    = 2
)

// AddFOU has IPv4 packets to a UDP port be taken for packets of the protocol (Foo over
// UDP), or, if that is 0, for those that a header in front of them says (Generic UDP
// Encapsulation). The error matches errors.ErrUnsupported where the kernel cannot.
func AddFOU(ns *Namespace, port uint16, proto uint8) error {
	op := fmt.Sprintf("add FOU port %d", port)
	family, err := genericFamily(ns, "fou")
	if err != nil {
		return fmt.Errorf("netlab: %s: %w", op, err)
	}
	r := newRequest(family, 0, unix.Genlmsghdr{Cmd: fouCmdAdd, Version: 1})
	r.bytes(fouAttrPort, binary.BigEndian.AppendUint16(nil, port))
	r.bytes(fouAttrAF, []byte{unix.AF_INET})
	if proto != 0 {
		r.bytes(fouAttrProto, []byte{proto})
		r.bytes(fouAttrType, []byte{fouDirect})
	} else {
		r.bytes(fouAttrType, []byte{fouGUE})
	}
	if err := r.changeBy(ns, unix.NETLINK_GENERIC); err != nil {
		return fmt.Errorf("netlab: %s: %w", op, err)
	}
	return nil
}

// genericFamily returns the number of a generic netlink family.
func genericFamily(ns *Namespace, name string) (uint16, error) {
	r := newRequest(unix.GENL_ID_CTRL, 0, unix.Genlmsghdr{Cmd: unix.CTRL_CMD_GETFAMILY, Version: 1})
	r.string(unix.CTRL_ATTR_FAMILY_NAME, name)
	reply, err := r.doBy(ns, unix.NETLINK_GENERIC)
	if err == unix.ENOENT {
		return 0, unix.EOPNOTSUPP
	}
	if err != nil {
		return 0, err
	}
	if len(reply) >= unix.GENL_HDRLEN {
		if id, ok := attribute(reply[unix.GENL_HDRLEN:], unix.CTRL_ATTR_FAMILY_ID); ok && len(id) == 2 {
			return binary.NativeEndian.Uint16(id), nil
		}
	}
	return 0, os.NewSyscallError("recvfrom", errShort)
}

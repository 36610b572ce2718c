// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Queues returns a link's numbers of receive and transmit queues.
func Queues(ns *Namespace, name string) (rx, tx int, err error) {
	r := newRequest(unix.RTM_GETLINK, 0, unix.IfInfomsg{})
	r.string(unix.IFLA_IFNAME, name)
	reply, err := r.do(ns)
	if err != nil {
		return 0, 0, err
	}
	attrs := reply[unix.SizeofIfInfomsg:]
	rxq, _ := attribute(attrs, unix.IFLA_NUM_RX_QUEUES)
	txq, _ := attribute(attrs, unix.IFLA_NUM_TX_QUEUES)
	if len(rxq) != 4 || len(txq) != 4 {
		return 0, 0, errShort
	}
	return int(binary.NativeEndian.Uint32(rxq)), int(binary.NativeEndian.Uint32(txq)), nil
}

// Qdisc returns the kind of a link's queueing discipline.
func Qdisc(ns *Namespace, name string) (string, error) {
	r := newRequest(unix.RTM_GETLINK, 0, unix.IfInfomsg{})
	r.string(unix.IFLA_IFNAME, name)
	reply, err := r.do(ns)
	if err != nil {
		return "", err
	}
	kind, _ := attribute(reply[unix.SizeofIfInfomsg:], unix.IFLA_QDISC)
	return string(bytes.TrimRight(kind, "\x00")), nil
}

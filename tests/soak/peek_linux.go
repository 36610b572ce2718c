// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// peek looks at the first datagram that waits, and asks the kernel for the record
// of the handle that came along.
func (r *receiver) peek(c *sockmeta.UDPConn, oob []byte, l *Ledger) {
	b := make([]byte, 8)
	_ = withFD(c, func(fd int) error {
		n, oobn, _, _, err := unix.Recvmsg(fd, b, oob, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if err != nil || n < len(b) {
			return err
		}
		data, ok := cmsg.Find(oob[:oobn], unix.SOL_SOCKET, unix.SO_TIMESTAMPING)
		if !ok || len(data) < 16 {
			l.add("udp peeked, no record", 1)
			return nil
		}
		handle := binary.NativeEndian.Uint64(data)*1e9 + binary.NativeEndian.Uint64(data[8:])
		var md sockmeta.Metadata
		_, err = bpf.SocketSlot(fd, handle, md.Record())
		if errors.Is(err, bpf.ErrNotSupported) {
			// Detached meanwhile.
			l.add("udp peeked, not supported", 1)
			return nil
		}
		compare(l, "udp peeked", b, &md, err, r.GRO)
		return nil
	})
}

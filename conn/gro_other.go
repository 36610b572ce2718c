// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package conn

import (
	"net/netip"
	"syscall"

	"github.com/sockmeta/sockmeta-go/cmsg"
)

func (c *UDPConn) setGRO(s Segments) error {
	if s == SegmentsOff {
		return nil
	}
	if s != SegmentsSplit && s != SegmentsWhole {
		return syscall.EINVAL
	}
	return nativeMissing()
}

func (*UDPConn) splits() bool { return false }

func (*UDPConn) readSegment(call, []byte, []byte, *cmsg.Metadata) (n, oobn, flags int, addr netip.AddrPort, err error) {
	return 0, 0, 0, netip.AddrPort{}, syscall.EINVAL
}

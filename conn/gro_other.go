// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package conn

import (
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

func (*UDPConn) readSegment(string, []byte, []byte, *cmsg.Metadata) (msg segment, ok bool, err error) {
	return segment{}, false, nil
}

// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// groState is what a connection knows of the datagrams that the kernel merges.
type groState struct {
	// mode is a Segments.
	mode atomic.Int32
	// splitting says that reads have to look at left.
	splitting atomic.Bool

	// What follows is used by functions that RawConn.Read calls, one at a time:
	// it locks the connection for reading, and looks at the deadline before.

	// left are datagrams that were read and not handed out, nil where none.
	left *aggregates
	// merged is how many datagrams the last aggregate had.
	merged int
}

// splits says whether reads have to look for datagrams that were merged.
func (c *UDPConn) splits() bool { return c.gro.splitting.Load() }

func (c *UDPConn) setGRO(s Segments) error {
	on := 1
	switch s {
	case SegmentsOff:
		on = 0
	case SegmentsSplit, SegmentsWhole:
	default:
		return fmt.Errorf("%w: %v", syscall.EINVAL, s)
	}
	if c.sock.raw == nil {
		return syscall.EINVAL
	}
	before := c.gro.mode.Load()
	if s == SegmentsSplit {
		// What the kernel merges is not to reach those who do not split.
		c.gro.mode.Store(int32(s))
		c.gro.splitting.Store(true)
	}
	var err error
	cerr := c.sock.raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_GRO, on)
	})
	if cerr == nil {
		cerr = os.NewSyscallError("setsockopt", err)
	}
	if errors.Is(err, unix.ENOPROTOOPT) {
		cerr = fmt.Errorf("%w: the kernel has no UDP_GRO: needs Linux 5.0: %w", ErrNotSupported, cerr)
		if s == SegmentsOff {
			cerr = nil
		}
	}
	if cerr != nil {
		// Reads find out that there is nothing to split.
		c.gro.mode.Store(before)
		return cerr
	}
	c.gro.mode.Store(int32(s))
	return nil
}

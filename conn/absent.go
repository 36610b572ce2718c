// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"fmt"
	"sync/atomic"
)

// absent says why a datagram has no metadata, err being what the carrier says.
func (c *UDPConn) absent(err error) error {
	switch err {
	case c.errNotSupported:
		return err
	case ErrOverrun:
		return c.overrun()
	case ErrNoMetadata:
		return c.noMetadata()
	}
	return opError("metadata", c.udp, err)
}

// overrun tells a record that newer packets overran from that of an attachment that
// the socket opted in to behind the connection's back, whose slots are not c's.
func (c *UDPConn) overrun() error {
	if err := c.sock.attached(); err != nil {
		return opError("metadata", c.udp, err)
	}
	return c.errOverrun
}

// detached says that there is no metadata any more, and until when to take it for granted
// that there is.
type detached struct {
	err     atomic.Pointer[error]
	checked checked
}

// noMetadata is the error of a datagram that has none. Whether the programs have gone it
// asks every now and then, as senders do.
func (c *UDPConn) noMetadata() error {
	d := &c.detached
	if err := d.err.Load(); err != nil {
		return *err
	}
	if !d.checked.isDue() {
		return c.errNoMetadata
	}
	return c.askDetached()
}

// askDetached is noMetadata, and asks now. Programs that have gone do not come back: those
// that are attached next are others.
func (c *UDPConn) askDetached() error {
	why := c.sock.attached()
	if why == nil {
		return c.errNoMetadata
	}
	err := opError("metadata", c.udp, fmt.Errorf("%w: %w", ErrNoMetadata, why))
	c.detached.err.Store(&err)
	return err
}

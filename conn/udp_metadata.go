// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"syscall"

	"github.com/sockmeta/sockmeta-go/cmsg"
)

// Metadata returns the metadata of the datagram that the last Read* call
// returned. Call it before the next one, and soon: the record is fetched now,
// and where newer packets have taken its place the error is ErrOverrun (not in the
// native tier, where it came with the datagram). The
// error is ErrNoMetadata where the datagram had none or nothing was read, and
// ErrNotSupported where there never is any; both where the programs were
// detached.
//
// The last call is the last of any goroutine: where several read from the
// connection, use ReadMetadata.
func (c *UDPConn) Metadata() (md cmsg.Metadata, err error) {
	if !c.ok() {
		return md, syscall.EINVAL
	}
	if err = c.carrier.recall(&md); err == nil {
		return md, nil
	}
	md.Reset()
	if err = c.absent(err); err == c.errNoMetadata {
		err = c.askDetached()
	}
	return md, err
}

// SetMetadataMessage sets whether ReadMsgUDP, ReadMsgUDPAddrPort and batches add
// a control message with the metadata, {SOL_BPF, cmsg.SCM_RECORD}, behind the
// others in oob (cmsg.FindMetadata reads it, cmsg.MetadataSpace is what to add
// to the buffer). A datagram without metadata gets none. By default they do
// not.
func (c *UDPConn) SetMetadataMessage(on bool) error {
	if !c.ok() {
		return syscall.EINVAL
	}
	if c.sock.err != nil {
		return c.errNotSupported
	}
	c.wantCmsg.Store(on)
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package conn

import "github.com/sockmeta/sockmeta-go/cmsg"

// came is what came with a datagram besides its payload. The record is fetched when
// something in it is needed.
type came struct {
	arrival
	// got are the kernel's control messages, which left bytes of the buffer free. flags
	// are recvmsg's.
	got         []byte
	left, flags int

	// md is where the record goes to.
	md      *cmsg.Metadata
	fetched bool
	// told is what the carrier knows of SO_TIMESTAMPING.
	told tsFlags
	err  error

	// socket is what the kernel knows of it now, for all datagrams of a call.
	socket *tsFlags
	// wanted says that the caller wants the record in md.
	wanted bool
	// noRecord and noSize leave out what the caller gets in other ways: the record,
	// and the size of the segments that were merged.
	noRecord, noSize bool
}

// open gives the caller what came: the record in md, and control messages in oob.
func (c *UDPConn) open(r *came, oob []byte) (nn, flags int) {
	if r.wanted {
		_ = c.fetch(r)
	}
	flags = r.callersFlags(r.flags, r.left)
	if r.isAll(r.got) && (r.noRecord || !c.wantCmsg.Load()) && c.told(r) == (tsFlags{known: true}) {
		// The handle is not the caller's, and no time was asked for.
		return 0, flags
	}
	nn, truncated := c.translate(oob, r)
	if truncated {
		// Cut messages in our larger buffer would have been cut in theirs.
		flags |= msgCtrunc
	}
	return nn, flags
}

// fetch fetches the record. After an error md is empty.
func (c *UDPConn) fetch(r *came) error {
	if !r.fetched {
		r.fetched = true
		r.told, r.err = c.record(&r.arrival, r.md)
	}
	return r.err
}

// record fetches the record of a datagram. After an error md is empty.
func (c *UDPConn) record(a *arrival, md *cmsg.Metadata) (tsFlags, error) {
	told, err := c.carrier.fetch(a, md)
	if err != nil {
		md.Reset()
		return tsFlags{}, c.absent(err)
	}
	return told, nil
}

// timestamping returns what the application asked of SO_TIMESTAMPING.
func (c *UDPConn) timestamping(r *came) uint32 {
	if told := c.told(r); told.known {
		return told.flags
	}
	return r.socket.ask(c)
}

// told returns what the carrier knows of it.
func (c *UDPConn) told(r *came) tsFlags {
	if !r.told.known {
		r.told = c.carrier.timestamping(r.handle)
	}
	return r.told
}

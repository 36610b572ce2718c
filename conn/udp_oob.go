// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/sockmeta/sockmeta-go/cmsg"
)

// ReadMsgUDPAddrPort reads a datagram into b and its control messages into oob,
// as net.UDPConn.ReadMsgUDPAddrPort does: oob gets what the application asked
// for and nothing else, timestamps show the packet's time, and MSG_CTRUNC is
// set in flags when they did not fit.
//
// Where the application has asked for timestamps (SO_TIMESTAMP, SO_TIMESTAMPING)
// and the datagram's record was lost to newer packets (ErrOverrun), its software
// timestamp is lost, too, and left out.
func (c *UDPConn) ReadMsgUDPAddrPort(b, oob []byte) (n, oobn, flags int, addr netip.AddrPort, err error) {
	if !c.ok() {
		return 0, 0, 0, netip.AddrPort{}, syscall.EINVAL
	}
	if c.splits() {
		if s, ok, err := c.readSegment("recvmsg", b, oob, nil); ok {
			if err != nil {
				s.addr = c.unspecified()
			}
			return s.n, s.nn, s.flags, s.addr, err
		}
	}
	if c.sock.err != nil {
		return c.udp.ReadMsgUDPAddrPort(b, oob)
	}
	var small [640]byte
	buf := small[:]
	if size := len(oob) + ownOOB + c.recordOOB(); size <= len(buf) {
		buf = buf[:size]
	} else {
		buf = resident(size)
	}
	n, got, flags, addr, err := c.udp.ReadMsgUDPAddrPort(b, buf)
	if err != nil {
		return n, 0, flags, addr, err
	}
	a := c.arrival(buf[:got], flags)
	c.remember(a)
	var md cmsg.Metadata
	oobn, truncated := c.translate(oob, buf[:got], &came{arrival: a, md: &md, asked: new(asked)})
	// Cut messages in our larger buffer would have been cut in theirs.
	flags = a.callersFlags(flags, len(buf)-got)
	if truncated {
		flags |= msgCtrunc
	}
	return n, oobn, flags, addr, nil
}

// unspecified is the address that net.UDPConn.ReadMsgUDPAddrPort returns with an
// error.
func (c *UDPConn) unspecified() netip.AddrPort {
	if local, ok := c.udp.LocalAddr().(*net.UDPAddr); ok && len(local.IP) == net.IPv4len {
		return netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
}

// came is a datagram's record, which is fetched when something in it is needed.
type came struct {
	arrival
	// md is where the record goes to.
	md      *cmsg.Metadata
	fetched bool
	tsflags uint32
	err     error

	asked *asked
	// noRecord and noSize leave out what the caller gets in other ways: the
	// record, and the size of the segments that were merged.
	noRecord, noSize bool
}

// fetch fetches the record. After an error md is empty.
func (c *UDPConn) fetch(r *came) error {
	if r.fetched {
		return r.err
	}
	r.fetched = true
	if c.sock.err != nil {
		r.md.Reset()
		r.err = c.errNotSupported
		return r.err
	}
	if r.tsflags, r.err = c.record(r.arrival, r.md); r.err != nil {
		r.md.Reset()
		return r.err
	}
	return nil
}

// timestamping returns what the application asked of SO_TIMESTAMPING.
func (c *UDPConn) timestamping(r *came) uint32 {
	if r.fetched && r.err == nil && !c.sock.native {
		return r.tsflags
	}
	if r.handle != 0 && c.sock.slots != nil {
		if flags, err := c.sock.slots.Timestamping(r.handle, c.sock.id); err == nil {
			return flags
		}
	}
	return r.asked.flags(c)
}

// asked is what the application asks of SO_TIMESTAMPING, for datagrams whose
// record does not say.
type asked struct {
	known   bool
	tsflags uint32
}

// flags asks the kernel, once.
func (a *asked) flags(c *UDPConn) uint32 {
	if !a.known {
		a.known = true
		q := queries.Get().(*query)
		defer queries.Put(q)
		if err := c.sock.raw.Control(q.askFlags); err == nil {
			a.tsflags = q.tsflags
		}
	}
	return a.tsflags
}

// translate writes to oob what the kernel would have without us. got is what it
// wrote.
func (c *UDPConn) translate(oob, got []byte, r *came) (oobn int, truncated bool) {
	w := cmsg.NewWriter(oob)
	it := cmsg.Parse(got)
	for m, ok := it.Next(); ok; m, ok = it.Next() {
		k := kindOf(m)
		if c.sock.native && isRecord(m) {
			continue
		}
		if k == kindOther || c.sock.err != nil {
			if !r.noSize || !isSegmentSize(m) {
				w.Put(int(m.Level), int(m.Type), m.Data)
			}
			continue
		}
		t := times{kind: k, msg: m, handle: r.handle}
		if k == kindTimestamping {
			t.tsflags = c.timestamping(r)
		}
		if t.handle != 0 && (k != kindTimestamping || wants(t.tsflags, tsSoftware, tsRxSoftware)) {
			t.lost = c.fetch(r) != nil
			t.tstamp, t.known = r.md.Timestamp()
		}
		var data [timestampingLen]byte
		if n := t.translate(&data); n > 0 {
			w.Put(int(m.Level), int(m.Type), data[:n])
		}
	}
	if !r.noRecord && c.wantCmsg.Load() && c.fetch(r) == nil {
		var buf [cmsg.MetadataSpace]byte
		own := cmsg.Parse(r.md.AppendCmsg(buf[:0]))
		if m, ok := own.Next(); ok {
			w.Put(int(m.Level), int(m.Type), m.Data)
		}
	}
	return w.Len(), w.Truncated()
}

// isSegmentSize tells the control message of a receiver with UDP_GRO.
func isSegmentSize(m cmsg.Message) bool { return m.Level == solUDP && m.Type == udpGRO }

// times is a control message with times, in which the kernel put the handle
// where the packet's time should be.
type times struct {
	kind    kind
	msg     cmsg.Message
	handle  uint64 // 0: what the kernel put are times
	tsflags uint32 // what the application asked of SO_TIMESTAMPING
	tstamp  time.Time
	known   bool // tstamp is valid
	lost    bool // there was a time, perhaps, and it is lost
}

// translate writes what the application asked for to data, and returns its
// length, 0 where there is nothing to tell.
func (t *times) translate(data *[timestampingLen]byte) int {
	switch {
	case t.kind == kindTimestamping:
		return t.timestamping(data)
	case t.handle == 0:
		return copy(data[:], t.msg.Data)
	case t.lost:
		return 0
	case !t.known:
		// The application asked after the packet had arrived. The kernel
		// fills in the current time then, and so do we.
		return putTime(data[:], time.Now(), t.kind, len(t.msg.Data))
	}
	return putTime(data[:], t.tstamp, t.kind, len(t.msg.Data))
}

// timestamping filters as __sock_recv_timestamp (net/socket.c) does, which did
// so by flags that include sockmeta's.
func (t *times) timestamping(data *[timestampingLen]byte) int {
	found := false
	if wants(t.tsflags, tsSoftware, tsRxSoftware) {
		switch {
		case t.handle == 0:
			found = copyTime(data[:], t.msg.Data, 0)
		case t.known:
			putTimespec(data[:], t.tstamp)
			found = true
		}
	}
	if wants(t.tsflags, tsRawHardware, tsRxHardware) && copyTime(data[:], t.msg.Data, 2) {
		found = true
	}
	if !found {
		return 0
	}
	return timestampingLen
}

// wants says whether the flags ask for a kind of timestamp on received packets.
func wants(flags, report, take uint32) bool {
	return flags&report != 0 && (flags&take != 0 || flags&tsRxFilter == 0)
}

// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"net/netip"
	"slices"
	"time"

	"github.com/sockmeta/sockmeta-go/bpf"
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
	if c.sock.err != nil {
		return c.udp.ReadMsgUDPAddrPort(b, oob)
	}
	var small [512]byte
	buf := small[:]
	if size := len(oob) + ownOOB; size <= len(buf) {
		buf = buf[:size]
	} else {
		buf = slices.Grow([]byte(nil), size)[:size]
	}
	n, got, flags, addr, err := c.udp.ReadMsgUDPAddrPort(b, buf)
	if err != nil {
		return n, 0, flags, addr, err
	}
	handle := findHandle(buf[:got])
	c.last.Store(handle)
	oobn, truncated := c.translate(oob, buf[:got], handle)
	// Cut messages in our larger buffer would have been cut in theirs.
	if truncated {
		flags |= msgCtrunc
	}
	return n, oobn, flags, addr, nil
}

// translate writes to oob what the kernel would have without us. got is what it
// wrote.
func (c *UDPConn) translate(oob, got []byte, handle uint64) (oobn int, truncated bool) {
	var md cmsg.Metadata
	w := cmsg.NewWriter(oob)
	tsflags, recordErr := c.record(handle, &md)

	it := cmsg.Parse(got)
	for m, ok := it.Next(); ok; m, ok = it.Next() {
		k := kindOf(m)
		if k == kindOther {
			w.Put(int(m.Level), int(m.Type), m.Data)
			continue
		}
		t := times{kind: k, msg: m, handle: handle, lost: handle != 0 && recordErr != nil}
		t.tstamp, t.known = md.Timestamp()
		if k == kindTimestamping {
			t.tsflags = tsflags
			if recordErr != nil {
				t.tsflags = c.applicationFlags()
			}
		}
		var data [timestampingLen]byte
		if n := t.translate(&data); n > 0 {
			w.Put(int(m.Level), int(m.Type), data[:n])
		}
	}
	if recordErr == nil && c.wantCmsg.Load() {
		var buf [cmsg.MetadataSpace]byte
		own := cmsg.Parse(md.AppendCmsg(buf[:0]))
		if m, ok := own.Next(); ok {
			w.Put(int(m.Level), int(m.Type), m.Data)
		}
	}
	return w.Len(), w.Truncated()
}

// applicationFlags asks the kernel what the application wants of
// SO_TIMESTAMPING, for datagrams whose record does not say.
func (c *UDPConn) applicationFlags() uint32 {
	var flags uint32
	_ = c.sock.raw.Control(func(fd uintptr) { flags = applicationFlags(int(fd)) })
	return flags
}

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

// findHandle returns the handle in the control messages of a datagram, 0 where
// there is none.
func findHandle(oob []byte) uint64 {
	it := cmsg.Parse(oob)
	for m, ok := it.Next(); ok; m, ok = it.Next() {
		if kindOf(m) != kindTimestamping {
			continue
		}
		if t := timespec(m.Data); t&bpf.HandleBit != 0 {
			return t
		}
	}
	return 0
}

// SPDX-License-Identifier: Apache-2.0

package conn

import "github.com/sockmeta/sockmeta-go/cmsg"

// translate writes to oob what the kernel would have without us.
func (c *UDPConn) translate(oob []byte, r *came) (oobn int, truncated bool) {
	w := cmsg.NewWriter(oob)
	it := cmsg.Parse(r.got)
	for m, ok := it.Next(); ok; m, ok = it.Next() {
		k := c.carrier.kind(m)
		switch k {
		case kindOwn:
			continue
		case kindOther:
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

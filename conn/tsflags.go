// SPDX-License-Identifier: Apache-2.0

package conn

// tsFlags is what the application asks of SO_TIMESTAMPING.
type tsFlags struct {
	known bool
	flags uint32
}

// ask asks the kernel, once.
func (t *tsFlags) ask(c *UDPConn) uint32 {
	if !t.known {
		t.known = true
		q := queries.Get().(*query)
		defer queries.Put(q)
		if err := c.sock.raw.Control(q.askFlags); err == nil {
			t.flags = q.tsflags
		}
	}
	return t.flags
}
